"""Intervals that numbers carry: jackknife, order statistics of a median, a proportion's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medlord_bench.errors import UserError
from medlord_bench.stats.arrays import LEVEL, Vector


@dataclass(frozen=True)
class Jackknife:
    """An estimate with its delete-one jackknife: bias taken off, standard error, degrees of freedom, and interval."""

    value: float
    debiased: float
    error: float
    freedom: float
    low: float
    high: float


def jackknife(value: float, *without_each: ArrayLike) -> Jackknife:
    """The delete-one jackknife of a statistic of one or several independent sets (Efron & Tibshirani 1993, ch. 11).

    without_each: per set, the statistic with each volume (or patient) of it left out. Biases and variances of the
    sets add up. The interval is for the statistic's expectation at this n (it is not moved by the bias), with
    Student's t at Welch-Satterthwaite degrees of freedom. Raises `UserError` where a set has fewer than two.
    """
    from scipy.stats import t

    bias, variances, freedoms = 0.0, [], []
    for values in (np.asarray(part, dtype=np.float64) for part in without_each):
        n = len(values)
        if n < 2:
            raise UserError(f"jackknife: {n} volumes or patients in a set, expected at least 2: give more")
        bias += (n - 1) * (float(values.mean()) - value)
        variances.append((n - 1) / n * float(((values - values.mean()) ** 2).sum()))
        freedoms.append(n - 1)
    variance = sum(variances)
    if variance == 0:
        return Jackknife(value, value - bias, 0.0, math.inf, value, value)
    freedom = variance**2 / sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
    error = float(np.sqrt(variance))
    reach = float(t.ppf(0.5 + LEVEL / 2, freedom)) * error
    return Jackknife(value, value - bias, error, freedom, value - reach, value + reach)


@dataclass(frozen=True)
class MedianInterval:
    """Median and quartiles; `low` and `high` are order statistics, None where n is too small for the level."""

    value: float
    lower_quartile: float
    upper_quartile: float
    low: float | None
    high: float | None


def median_interval(values: ArrayLike) -> MedianInterval:
    """The median with its exact, distribution-free interval between two order statistics (Hahn & Meeker 1991, 5.2).

    Coverage is at least 95 %; below n = 6 no pair of order statistics reaches it and the ends are None. Infinite
    values take part in the order. Raises `UserError` for no values and for NaN.
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
    """Linear between neighbours (NumPy's default); the infinite one where a neighbour is infinite, never NaN."""
    place = q * (len(ordered) - 1)
    below, above = float(ordered[int(place)]), float(ordered[math.ceil(place)])
    if np.isinf(below) or below == above or place == int(place):
        return below
    return below + (place - int(place)) * (above - below)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion (Wilson 1927). Raises `UserError` unless 0 <= successes <= n, n > 0."""
    from scipy.stats import binomtest

    if not 0 <= successes <= n or n == 0:
        raise UserError(f"wilson: {successes} of {n}, expected 0 <= successes <= n and n > 0")
    interval = binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)
