"""Intervals: jackknife, order statistics of a median, a proportion's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medlord_bench.errors import UserError
from medlord_bench.stats.arrays import LEVEL, Vector


@dataclass(frozen=True)
class Jackknife:
    """An estimate with its delete-one jackknife: bias-corrected value, standard error, degrees of freedom, interval."""

    value: float
    debiased: float
    error: float
    freedom: float
    low: float
    high: float


def jackknife(value: float, *without_each: ArrayLike, squared: bool = False, heavy: bool = False) -> Jackknife:
    """The delete-one jackknife of a statistic of one or several independent sets (Efron & Tibshirani 1993, ch. 11).

    without_each: per set, the statistic with each volume (or patient) of it left out. Biases and variances of the
    sets add up. The interval is for the statistic's expectation at this n (it is not shifted by the bias), with
    Student's t at Welch-Satterthwaite degrees of freedom, and always contains `value`.

    squared: the statistic is a squared distance, like the Fréchet distance; the interval is computed for its fourth root,
    which makes sums of squares nearly normal (Hawkins & Wixley 1986, Am. Stat. 40), and raised to the fourth power. The
    variance of a squared distance grows with its value, so the plain interval is too short exactly when the value is too
    low. docs/metrics/fid.md has its coverage: about 95 % for normal features. With heavy tails it covers the median of
    the statistic over repeated sets, and its expectation, which rare volumes dominate, much less often.

    heavy: the degrees of freedom are those of a variance estimated from values of this kurtosis, for statistics that few
    volumes decide (see `tails`): Var(s^2) = sigma^4 (2 / (n - 1) + excess kurtosis / n).

    Raises `UserError` if a set has fewer than two, and for negative values of a squared distance.
    """
    from scipy.stats import t

    parts = [np.asarray(part, dtype=np.float64) for part in without_each]
    for part in parts:
        if len(part) < 2:
            raise UserError(f"jackknife: {len(part)} volumes or patients in a set, expected at least 2: give more")
    bias = sum((len(part) - 1) * (float(part.mean()) - value) for part in parts)
    error, freedom = _error(parts, heavy)
    if error == 0:
        return Jackknife(value, value - bias, 0.0, freedom, value, value)
    if not squared:
        reach = float(t.ppf(0.5 + LEVEL / 2, freedom)) * error
        return Jackknife(value, value - bias, error, freedom, value - reach, value + reach)
    if min(value, *(part.min() for part in parts)) < 0:
        raise UserError("jackknife: a negative squared distance, expected zero or more: use it unsquared")
    root_error, root_freedom = _error([part**0.25 for part in parts], heavy)
    root, reach = value**0.25, float(t.ppf(0.5 + LEVEL / 2, root_freedom)) * root_error
    low, high = min(value, max(root - reach, 0.0) ** 4), max(value, (root + reach) ** 4)
    return Jackknife(value, value - bias, error, root_freedom, low, high)


def _error(parts: Sequence[Vector], heavy: bool = False) -> tuple[float, float]:
    """The jackknife's standard error, and its degrees of freedom after Welch and Satterthwaite."""
    variances = [(len(part) - 1) / len(part) * float(((part - part.mean()) ** 2).sum()) for part in parts]
    variance = sum(variances)
    if variance == 0:
        return 0.0, math.inf
    freedoms = [_freedom(part, heavy) for part in parts]
    return math.sqrt(variance), variance**2 / sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))


def _freedom(part: Vector, heavy: bool) -> float:
    """The degrees of freedom of a variance, 2 / its squared coefficient of variation; heavy: by the kurtosis."""
    from scipy.stats import kurtosis

    n = len(part)
    if not heavy or n < 4 or np.ptp(part) == 0:
        return n - 1
    excess = max(float(kurtosis(part, bias=False)), 0.0)
    return 2 / (2 / (n - 1) + excess / n)


@dataclass(frozen=True)
class MedianInterval:
    """Median and quartiles; `low` and `high` are order statistics, None if n is too small for the level."""

    value: float
    lower_quartile: float
    upper_quartile: float
    low: float | None
    high: float | None


def median_interval(values: ArrayLike) -> MedianInterval:
    """The median with its exact, distribution-free interval between two order statistics (Hahn & Meeker 1991, 5.2).

    Coverage is at least 95 %; below n = 6 no pair of order statistics reaches it and the ends are None. Infinite
    values are included in the order. Raises `UserError` for no values and for NaN.
    """
    from scipy.stats import binom

    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if ordered.ndim != 1 or not len(ordered) or np.isnan(ordered).any():
        raise UserError(f"median: {ordered.size} values, NaN among them or none at all; expected numbers, one per case")
    n = len(ordered)
    # The rank-th value from either end: P(Binomial(n, 1/2) < rank) may be at most 2.5 %.
    rank = int(np.searchsorted(binom.cdf(np.arange(n // 2 + 1), n, 0.5), (1 - LEVEL) / 2, side="right"))
    low, high = (float(ordered[rank - 1]), float(ordered[n - rank])) if rank else (None, None)
    return MedianInterval(_quantile(ordered, 0.5), _quantile(ordered, 0.25), _quantile(ordered, 0.75), low, high)


def _quantile(ordered: Vector, q: float) -> float:
    """Linear between neighbours (NumPy's default); infinite if a neighbour is infinite, never NaN."""
    place = q * (len(ordered) - 1)
    below, above = float(ordered[int(place)]), float(ordered[math.ceil(place)])
    if np.isinf(below) or below == above or place == int(place):
        return below
    return below + (place - int(place)) * (above - below)


def more_often(successes: int, n: int, others: int, n_others: int) -> float:
    """P-value of Fisher's exact test, one-sided: is the proportion successes / n above others / n_others?"""
    from scipy.stats import fisher_exact

    table = np.array([[successes, n - successes], [others, n_others - others]])
    return float(fisher_exact(table, alternative="greater").pvalue)


def wilson(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's interval of a proportion (Wilson 1927). Raises `UserError` unless 0 <= successes <= n, n > 0."""
    from scipy.stats import binomtest

    if not 0 <= successes <= n or n == 0:
        raise UserError(f"wilson: {successes} of {n}, expected 0 <= successes <= n and n > 0")
    interval = binomtest(successes, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)
