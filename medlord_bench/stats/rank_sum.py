"""Whether one set of numbers is above another: the rank-sum test with its exact permutation distribution, ties included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medlord_bench.errors import UserError
from medlord_bench.stats.detection import BOOTSTRAPS, area

EXACT = 150  # numbers


@dataclass(frozen=True)
class Separation:
    """auc: how often a number of the first set is above one of the second, ties half. p: two-sided. exact: whether p is
    of all divisions of the numbers, and not the normal approximation."""

    auc: float
    p: float
    exact: bool


def separation(first: ArrayLike, second: ArrayLike) -> Separation:
    """Rank-sum test of two sets of finite numbers, (n,) and (m,) (Mann & Whitney 1947).

    p is the share of all ways to divide the n + m numbers into sets of n and m whose rank sum is at least as far from its
    mean. Tied numbers have their mean rank, so the distribution is exact with ties too. The ways are counted and not drawn.
    Of more than `EXACT` numbers p is the normal approximation with its correction for ties. Raises `UserError` for an empty
    set or numbers that are not finite.
    """
    from scipy.stats import mannwhitneyu, rankdata

    x, y = np.asarray(first, dtype=np.float64).ravel(), np.asarray(second, dtype=np.float64).ravel()
    both = np.concatenate([x, y])
    if not len(x) or not len(y) or not np.isfinite(both).all():
        raise UserError(f"rank sum: {len(x)} and {len(y)} numbers, expected finite ones in both sets")
    ranks = np.rint(2 * rankdata(both)).astype(int)  # twice the mean rank: whole numbers, also with ties
    auc = (ranks[: len(x)].sum() / 2 - len(x) * (len(x) + 1) / 2) / (len(x) * len(y))
    if len(both) > EXACT:
        return Separation(float(auc), float(mannwhitneyu(x, y, method="asymptotic").pvalue), False)
    few = min(x, y, key=len)
    own = int(ranks[: len(x)].sum() if few is x else ranks[len(x) :].sum())
    ways = _ways(ranks, len(few))
    mean = len(few) * (len(both) + 1)
    far = np.abs(np.arange(len(ways)) - mean) >= abs(own - mean)
    return Separation(float(auc), float(ways[far].sum() / ways.sum()), True)


@dataclass(frozen=True)
class Dominance:
    """Cliff's delta with its interval, and p and `exact` of its rank-sum test."""

    delta: float
    low: float
    high: float
    p: float
    exact: bool


def dominance(first: ArrayLike, second: ArrayLike, seed: int, bootstraps: int = BOOTSTRAPS) -> Dominance:
    """Cliff's delta P(x > y) - P(x < y) of two sets of cases, one number for each case (Cliff 1993).

    p is that of `separation`, a permutation test with the cases as units; the interval is the percentile bootstrap over
    cases. Raises `UserError` as `separation`.
    """
    test, auc = separation(first, second), area(first, second, seed, bootstraps)
    return Dominance(2 * auc.value - 1, 2 * auc.low - 1, 2 * auc.high - 1, test.p, test.exact)


def _ways(ranks: np.ndarray, size: int) -> np.ndarray:
    """Sum of ranks -> share of the sets of `size` ranks that have it, up to a constant factor."""
    ways = np.zeros((size + 1, int(ranks.sum()) + 1))
    ways[0, 0] = 1
    for number, rank in enumerate(ranks, 1):
        top = min(number, size)
        ways[1 : top + 1, rank:] += ways[:top, : ways.shape[1] - rank].copy()
        if number % 100 == 0:  # a share is all that is needed, and counts overflow
            ways /= ways.max()
    return np.asarray(ways[size])
