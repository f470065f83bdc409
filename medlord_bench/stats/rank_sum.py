"""Whether one set of numbers lies above another: the rank-sum test with its exact permutation distribution, ties included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medlord_bench.errors import UserError


@dataclass(frozen=True)
class Separation:
    """auc: how often a number of the first set is above one of the second, ties half. p: two-sided, exact."""

    auc: float
    p: float


def separation(first: ArrayLike, second: ArrayLike) -> Separation:
    """Rank-sum test of two sets of finite numbers, (n,) and (m,) (Mann & Whitney 1947).

    p is the share of all ways to divide the n + m numbers into sets of n and m whose rank sum is at least as far from its
    mean. Tied numbers have their mean rank, so the distribution is exact with ties too. The ways are counted and not drawn:
    n + m = 100 takes milliseconds. Raises `UserError` for an empty set or numbers that are not finite.
    """
    from scipy.stats import rankdata

    x, y = np.asarray(first, dtype=np.float64).ravel(), np.asarray(second, dtype=np.float64).ravel()
    both = np.concatenate([x, y])
    if not len(x) or not len(y) or not np.isfinite(both).all():
        raise UserError(f"rank sum: {len(x)} and {len(y)} numbers, expected finite ones in both sets")
    ranks = np.rint(2 * rankdata(both)).astype(int)  # twice the mean rank: whole numbers, also with ties
    own, mean = int(ranks[: len(x)].sum()), len(x) * (len(both) + 1)
    ways = _ways(ranks, len(x))
    far = np.abs(np.arange(len(ways)) - mean) >= abs(own - mean)
    auc = (own / 2 - len(x) * (len(x) + 1) / 2) / (len(x) * len(y))
    return Separation(float(auc), float(ways[far].sum() / ways.sum()))


def _ways(ranks: np.ndarray, size: int) -> np.ndarray:
    """Sum of ranks -> share of the sets of `size` ranks that have it, up to a constant factor."""
    ways = np.zeros((size + 1, int(ranks.sum()) + 1))
    ways[0, 0] = 1
    for number, rank in enumerate(ranks, 1):
        top = min(number, size)
        ways[1 : top + 1, rank:] += ways[:top, : ways.shape[1] - rank].copy()
        if ways.max() > 1e200:
            ways /= 1e200
    return np.asarray(ways[size])
