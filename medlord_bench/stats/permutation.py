"""Whether two sets of cases are rated differently: a permutation test, with Cliff's delta as the effect."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medlord_bench.errors import UserError
from medlord_bench.stats.arrays import Vector
from medlord_bench.stats.detection import BOOTSTRAPS, area
from medlord_bench.util.seeds import numpy_rng

PERMUTATIONS = 9999
EXACT = 20_000  # with at most so many labellings all of them are formed


@dataclass(frozen=True)
class Dominance:
    """Cliff's delta with its interval, and the two-sided p-value. exact: all labellings were formed."""

    delta: float
    low: float
    high: float
    p: float
    exact: bool


def dominance(first: ArrayLike, second: ArrayLike, seed: int, bootstraps: int = BOOTSTRAPS) -> Dominance:
    """Cliff's delta P(x > y) - P(x < y) of values of two sets of cases, one number for each case (Cliff 1993).

    The p-value is that of a permutation test of the mean rank, with the cases as units; its interval is the percentile
    bootstrap over cases. With many labellings `PERMUTATIONS` random ones are drawn, and the p-value is
    (1 + as extreme) / (1 + drawn) (Phipson & Smyth 2010). Raises `UserError` for an empty set or values not finite.
    """
    from scipy.stats import rankdata

    x, y = (np.asarray(values, dtype=np.float64).ravel() for values in (first, second))
    if not len(x) or not len(y) or not np.isfinite([*x, *y]).all():
        raise UserError(
            f"cliff's delta: {len(x)} and {len(y)} values, expected finite values of at least one case each"
        )
    auc = area(x, y, seed, bootstraps)
    ranks = rankdata(np.concatenate([x, y]))
    labellings = math.comb(len(ranks), len(x))
    sums, exact = _sums(ranks, len(x), labellings, seed)
    middle = len(x) * (len(ranks) + 1) / 2
    extreme = int((np.abs(sums - middle) >= abs(ranks[: len(x)].sum() - middle) - 1e-9).sum())
    p = extreme / labellings if exact else (1 + extreme) / (1 + len(sums))
    return Dominance(2 * auc.value - 1, 2 * auc.low - 1, 2 * auc.high - 1, p, exact)


def _sums(ranks: Vector, n: int, labellings: int, seed: int) -> tuple[Vector, bool]:
    """Sums of the ranks of the first set, under all labellings or under random ones."""
    from itertools import combinations

    if labellings <= EXACT:
        return ranks[np.array(list(combinations(range(len(ranks)), n)))].sum(1), True
    rng = numpy_rng(seed, "permutation")
    return rng.permuted(np.tile(ranks, (PERMUTATIONS, 1)), axis=1)[:, :n].sum(1), False
