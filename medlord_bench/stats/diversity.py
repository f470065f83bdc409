"""How much the members of one set differ from each other, beside those of another set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from medlord_bench.errors import UserError
from medlord_bench.stats.arrays import Matrix, Vector
from medlord_bench.stats.intervals import Jackknife, jackknife
from medlord_bench.util.seeds import numpy_rng

LEAST_MEMBERS = 3  # with one left out there must still be a pair
BATCH = 64  # relabellings at a time: bounded memory
CLOSEST = 1e-6  # distances below it count as it, so that the logarithm of an exact copy is finite
Statistic = Callable[[Matrix], Vector]


def mean_of_pairs(pairs: Matrix) -> Vector:
    """(sets, n, n) or (n, n), symmetric: the mean over pairs of different members, a U-statistic (Hoeffding 1948)."""
    n = pairs.shape[-1]
    return np.asarray((pairs.sum((-2, -1)) - np.trace(pairs, axis1=-2, axis2=-1)) / (n * (n - 1)))


def vendi_score(kernel: Matrix) -> Vector:
    """(sets, n, n) or (n, n), positive semidefinite with ones on the diagonal: the effective number of different members.

    The exponential of the entropy of the eigenvalues of kernel / n: 1 if all members are equal, n if no two resemble each
    other (Friedman & Dieng 2023, arXiv 2210.02410, definition 3.1).
    """
    shares = np.linalg.eigvalsh(kernel / kernel.shape[-1]).clip(0.0)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.asarray(np.exp(-(shares * logs).sum(-1)))


def nearest_distance(distances: Matrix) -> Vector:
    """(sets, n, n) or (n, n): the geometric mean over members of the distance to the nearest other member."""
    apart = distances + np.where(np.eye(distances.shape[-1], dtype=bool), np.inf, 0.0)
    return np.asarray(np.exp(np.log(apart.min(-1).clip(CLOSEST)).mean(-1)))


def of_one_set(statistic: Statistic, pairs: Matrix) -> Jackknife:
    """A statistic of one set (n, n) with its delete-one jackknife. Raises `UserError` for fewer than three members."""
    n = len(pairs)
    if n < LEAST_MEMBERS:
        raise UserError(f"diversity: {n} members, expected at least {LEAST_MEMBERS}: give more")
    kept = [np.delete(np.arange(n), i) for i in range(n)]
    return jackknife(float(statistic(pairs)), [float(statistic(pairs[np.ix_(rest, rest)])) for rest in kept])


def relabelled(
    statistic: Statistic, pairs: Matrix, n: int, seed: int, permutations: int, name: str
) -> tuple[float, float]:
    """P-values of the difference of a statistic between two sets, the first `n` of `pairs` (N, N) and the others.

    (lower, higher): one-sided, that the first set's value is not below, and not above, the other's, under the hypothesis
    that both are of one distribution: members are relabelled at random. (1 + count) / (1 + permutations), Phipson & Smyth
    2010. `name` and `seed` seed the permutations.
    """
    total, rng = len(pairs), numpy_rng(seed, name, "relabelled")

    def differences(orders: NDArray[np.int64]) -> Vector:
        first, second = orders[:, :n], orders[:, n:]
        return np.asarray(statistic(_parts(pairs, first)) - statistic(_parts(pairs, second)))

    observed = float(differences(np.arange(total)[None])[0])
    rounding = 1e-9 * max(abs(observed), float(np.abs(pairs).max(initial=0.0)))
    below = above = 0
    for start in range(0, permutations, BATCH):
        rows = min(BATCH, permutations - start)
        found = differences(rng.permuted(np.tile(np.arange(total), (rows, 1)), axis=1))
        below += int((found <= observed + rounding).sum())
        above += int((found >= observed - rounding).sum())
    return (1 + below) / (1 + permutations), (1 + above) / (1 + permutations)


def _parts(pairs: Matrix, chosen: NDArray[np.int64]) -> Matrix:
    """(sets, k, k): the rows and columns of each set of members."""
    part: Matrix = pairs[chosen[:, :, None], chosen[:, None, :]]
    return part


def groups(distances: Matrix, threshold: float) -> list[list[int]]:
    """The members (n, n) in groups, the largest first: two are in one group if a chain of members, each nearer than
    `threshold` to the next, leads from one to the other."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    count, labels = connected_components(csr_matrix((distances < threshold).astype(np.int8)), directed=False)
    found = [np.flatnonzero(labels == label).tolist() for label in range(count)]
    return sorted(found, key=lambda members: (-len(members), members))
