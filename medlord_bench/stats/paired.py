"""Differences measured on the same cases or against the same real set: tests, intervals, and required sample sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medlord_bench.errors import UserError
from medlord_bench.stats.arrays import LEVEL, Vector
from medlord_bench.stats.intervals import Jackknife, jackknife

Alternative = Literal["two-sided", "less", "greater"]
MAX_EXACT_PAIRS = 200  # up to this many pairs the signed-rank distribution is exact, above it is normal to four digits


# ------------------------------------------------------------------------------------------------ per-case differences
@dataclass(frozen=True)
class Wilcoxon:
    """A paired comparison: the Hodges-Lehmann estimate of the difference with its interval, and the signed-rank
    p-value.

    low, high: None if n is too small for the level. n: pairs; zeros: pairs without a difference, included in n.
    """

    estimate: float
    low: float | None
    high: float | None
    p: float
    n: int
    zeros: int


def wilcoxon_paired(differences: ArrayLike) -> Wilcoxon:
    """Wilcoxon's signed-rank test of paired differences (n,), two-sided, and the median of their Walsh averages.

    Hodges & Lehmann 1963; the interval is between two order statistics of the Walsh averages (Hollander & Wolfe 1999,
    3.3), and assumes, as the test does, differences that are symmetric about their centre. Zero differences keep their
    ranks (Pratt 1959). Infinite ones (a distance to a missing structure) are tied in rank above all others. Raises `UserError` for
    NaN and for no values.
    """
    values = _differences(differences)
    low, high = _walsh_interval(values, LEVEL)
    estimate = float(np.median(_walsh(values)))
    return Wilcoxon(estimate, low, high, _signed_rank_p(values, "two-sided"), len(values), int((values == 0).sum()))


def _differences(differences: ArrayLike) -> Vector:
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or not len(values) or np.isnan(values).any():
        raise UserError(
            f"paired differences: {values.size} values, NaN among them or none at all; expected numbers, one per case"
        )
    return values


def _signed_rank_p(values: Vector, alternative: Alternative) -> float:
    """Exact for few values without ties or zeros, else normal with corrected variance (scipy's choice)."""
    from scipy.stats import wilcoxon

    if not values.any():
        return 1.0
    finite = np.isfinite(values)
    largest = np.abs(values[finite]).max(initial=1.0)
    ranked = np.where(finite, values, np.sign(values) * 2 * largest)
    return float(wilcoxon(ranked, zero_method="pratt", alternative=alternative).pvalue)


def _walsh(values: Vector) -> Vector:
    """Averages of all pairs, including each value with itself, in order. Opposite infinities average to 0."""
    one, other = np.triu_indices(len(values))
    with np.errstate(invalid="ignore"):
        averages = (values[one] + values[other]) / 2
    return np.sort(np.where(np.isnan(averages), 0.0, averages))


def _walsh_interval(values: Vector, level: float) -> tuple[float | None, float | None]:
    rank = _signed_rank_quantile(len(values), (1 - level) / 2)
    ordered = _walsh(values)
    return (float(ordered[rank - 1]), float(ordered[len(ordered) - rank])) if rank else (None, None)


def _signed_rank_quantile(n: int, tail: float) -> int:
    """The largest r with P(T < r) <= tail, T being the sum of the ranks 1..n selected by fair coin tosses."""
    if n > MAX_EXACT_PAIRS:
        from scipy.stats import norm

        return int(n * (n + 1) / 4 + norm.ppf(tail) * math.sqrt(n * (n + 1) * (2 * n + 1) / 24))
    chances = np.array([1.0])
    for rank in range(1, n + 1):
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    return int(np.searchsorted(np.cumsum(chances), tail, side="right"))


@dataclass(frozen=True)
class Tost:
    """Two one-sided tests. p: of the hypothesis that the difference is at least `margin`; low, high: 90 % interval."""

    p: float
    low: float | None
    high: float | None
    margin: float


def tost(differences: ArrayLike, margin: float) -> Tost:
    """Equivalence of paired measurements (n,): is the centre of their differences within +-margin? (Schuirmann 1987)

    Two one-sided signed-rank tests, not t-tests: overlap scores are skewed and a missed structure is an outlier that
    would dominate a mean. Equivalence and difference (`wilcoxon_paired`) thus refer to the same centre. Equivalent at
    5 % if p <= 0.05, approximately if the 90 % interval is inside +-margin. Raises `UserError` for NaN, no values, or
    a margin that is not positive.
    """
    values = _differences(differences)
    if not 0 < margin < math.inf:
        raise UserError(f"equivalence: margin {margin}, expected a positive number in the unit of the differences")
    p = max(_signed_rank_p(values + margin, "greater"), _signed_rank_p(values - margin, "less"))
    return Tost(p, *_walsh_interval(values, 2 * LEVEL - 1), margin)


# -------------------------------------------------------------------------------- differences of distribution metrics
class LeftOut(Protocol):
    """The result of `frechet_jackknife` and `kernel_distance`: a value, and the values without each sample and real
    unit."""

    @property
    def value(self) -> float: ...
    @property
    def without_x(self) -> Vector: ...
    @property
    def without_y(self) -> Vector: ...


@dataclass(frozen=True)
class PairedDifference:
    """A difference of two distances with its interval and p-value. debiased: minus the jackknife's bias."""

    value: float
    debiased: float
    error: float
    low: float
    high: float
    p: float


def paired_jackknife(a: LeftOut, b: LeftOut, squared: bool = False) -> PairedDifference:
    """a - b, two generators' distances (Fréchet, kernel) to the same real set, by the jackknife.

    x are each generator's own samples; y are the real units, the same and in the same order for both, so that leaving
    one out changes both distances, and only the difference of these changes matters. The test is Student's t,
    two-sided, at Welch-Satterthwaite degrees of freedom.

    squared: both are squared distances, and their roots are compared: a - b = (root a - root b) (root a + root b), and
    the first factor's error times the second factor is the error of a - b. The variance of a squared distance grows with
    its value, and the root's does not: p-values are less conservative. Size and power: docs/comparison.md.

    Raises `UserError` if the real units differ in number, and for negative squared distances.
    """
    from scipy.stats import t

    if len(a.without_y) != len(b.without_y):
        raise UserError(
            f"paired difference: {len(a.without_y)} and {len(b.without_y)} real units, expected the same real set for "
            "both: measure both against one"
        )
    value, plain = a.value - b.value, _apart(a, b)
    found, factor = plain, 1.0
    if squared:
        one, other = _rooted(a), _rooted(b)
        found, factor = _apart(one, other), one.value + other.value
    error = found.error * factor
    if error == 0:
        return PairedDifference(value, plain.debiased, 0.0, value, value, 1.0 if value == 0 else 0.0)
    reach = (found.high - found.value) * factor
    p = 2 * float(t.sf(abs(value) / error, found.freedom))
    return PairedDifference(value, plain.debiased, error, value - reach, value + reach, p)


def _apart(a: LeftOut, b: LeftOut) -> Jackknife:
    parts = a.without_x - b.value, a.value - b.without_x, a.without_y - b.without_y
    return jackknife(a.value - b.value, *parts)


@dataclass(frozen=True)
class _Rooted:
    value: float
    without_x: Vector
    without_y: Vector


def _rooted(of: LeftOut) -> _Rooted:
    if min(of.value, of.without_x.min(), of.without_y.min()) < 0:
        raise UserError("paired difference: a negative squared distance, expected zero or more: compare it unsquared")
    return _Rooted(math.sqrt(of.value), np.sqrt(of.without_x), np.sqrt(of.without_y))


# ------------------------------------------------------------------------------------------ many tests, and how many n
def holm(ps: Sequence[float]) -> NDArray[np.float64]:
    """P-values corrected for multiple comparisons (Holm 1979), in the given order.

    As statsmodels' multipletests, which collects garbage at each call: a tenth of a second. Raises `UserError` for a
    value that is not a probability.
    """
    values = np.asarray(ps, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise UserError(f"holm: p-values {list(ps)}, expected numbers from 0 to 1")
    order = np.argsort(values, kind="stable")
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)), 1.0)
    return corrected


def n_needed(difference: float, standard_error_at_n: float, n: int, power: float = 0.8) -> int | None:
    """The number of units (cases, volumes per side) that detects this difference at 5 %, two-sided, with this power.

    The standard error is assumed to decrease like 1 / sqrt(n), and the test to be a one-sample t-test (statsmodels'
    TTestPower): for distribution distances an approximation. None for a difference of zero, which no n can detect.
    Raises `UserError` unless the error is positive, n at least 2 and the power between 0 and 1.
    """
    from scipy.stats import norm
    from statsmodels.stats.power import TTestPower

    if not (standard_error_at_n > 0 and n >= 2 and 0 < power < 1 and math.isfinite(difference)):
        raise UserError(
            f"n needed: difference {difference}, error {standard_error_at_n}, n {n}, power {power}; expected a finite "
            "difference, a positive error, n of at least 2 and a power between 0 and 1"
        )
    if difference == 0:
        return None
    effect = abs(difference) / (standard_error_at_n * math.sqrt(n))
    alpha = 1 - LEVEL
    # This number suffices for a known error; with an estimated error a few more are needed.
    needed = max(2, math.ceil(((norm.ppf(1 - alpha / 2) + norm.ppf(power)) / effect) ** 2))
    if needed < 10_000:
        while TTestPower().power(effect, needed, alpha) < power:
            needed += 1
    return needed


def detectable_difference(standard_error_at_n: float, n: int, power: float = 0.8) -> float:
    """The smallest difference that n units detect at 5 %, two-sided, with this power: the inverse of `n_needed`.

    It is the power of a one-sample t-test, as in `n_needed`. For a known error it is (z(97.5 %) + z(power)) * error,
    2.80 * error; with few units it is larger, since the error is estimated. One test is assumed, without correction for
    further comparisons. Raises `UserError` unless the error is positive, n at least 2 and the power between 0 and 1.
    """
    if not (0 < standard_error_at_n < math.inf and n >= 2 and 0 < power < 1):
        raise UserError(
            f"detectable difference: error {standard_error_at_n}, n {n}, power {power}; expected a positive error, n of "
            "at least 2 and a power between 0 and 1"
        )
    return _detectable_errors(n, power) * standard_error_at_n


@cache
def _detectable_errors(n: int, power: float) -> float:
    """The detectable difference in units of the error.

    Power is averaged over quantiles of the estimated error. SciPy's noncentral t is NaN at two units, and statsmodels'
    solver gives other last digits at each call.
    """
    from scipy.optimize import brentq
    from scipy.stats import chi2, norm, t

    critical = float(t.ppf(0.5 + LEVEL / 2, n - 1))
    limits = critical * np.sqrt(chi2.ppf((np.arange(4000) + 0.5) / 4000, n - 1) / (n - 1))

    def missing(errors: float) -> float:
        found = norm.sf(limits - errors) + norm.cdf(-limits - errors)
        return float(found.mean()) - power

    return float(brentq(missing, 0.0, 10 * critical)) if missing(0.0) < 0 else 0.0
