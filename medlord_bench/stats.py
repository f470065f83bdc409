"""The Fréchet distance and the intervals that numbers carry. Everything in float64, resampled by volume or patient.

No matrix square root is formed anywhere: tr (S1 S2)^(1/2) is the sum of the singular values of A B^T where S1 = A^T A
and S2 = B^T B, or the sum of the square roots of the eigenvalues of a symmetric matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medlord_bench.errors import UserError

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]
EPS = float(np.finfo(np.float64).eps)
LEVEL = 0.95  # nominal coverage of every interval


# ----------------------------------------------------------------------------------------------- Fréchet distance
def _rows(features: ArrayLike, name: str) -> Matrix:
    """Features as float64 (n, d), checked."""
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[0] < 2:
        raise UserError(
            f"{name}: features of shape {rows.shape}, expected at least two rows of (n, d): give more samples"
        )
    if not np.isfinite(rows).all():
        raise UserError(f"{name}: features hold NaN or infinity, expected finite numbers: extract them again")
    return rows


def _checked(x: ArrayLike, y: ArrayLike) -> tuple[Matrix, Matrix]:
    first, second = _rows(x, "first set"), _rows(y, "second set")
    if first.shape[1] != second.shape[1]:
        raise UserError(
            f"features of {first.shape[1]} and {second.shape[1]} dimensions, expected the same extractor on both sides: "
            "extract both sets with one extractor"
        )
    return first, second


def _centred(rows: Matrix) -> Matrix:
    """A with A^T A = covariance (n - 1 in the denominator)."""
    factor: Matrix = (rows - rows.mean(0)) / np.sqrt(len(rows) - 1)
    return factor


def _roots(symmetric: Matrix) -> float:
    """The sum of the square roots of the eigenvalues of a positive semidefinite matrix; rounding noise counts as 0."""
    values = np.linalg.eigvalsh(symmetric)
    noise = values.max(initial=0.0) * len(values) * EPS
    return float(np.sqrt(values[values > noise]).sum())


def _factor(covariance: Matrix) -> Matrix:
    """L (d, r) with L L^T = covariance, r its numerical rank."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > values.max(initial=0.0) * len(values) * EPS
    factor: Matrix = vectors[:, kept] * np.sqrt(values[kept])
    return factor


def frechet_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Squared Fréchet distance between Gaussians fitted to two sets of features (n, d) and (m, d).

    Dowson & Landau 1982; Heusel et al. 2017 (arXiv 1706.08500), eq. 6. With min(n, m) < d the nuclear norm of A B^T
    (n, m) is used: it is exact where the covariances are singular, and the dense forms are not. Raises `UserError`
    where a set has fewer than two rows, is not finite, or the dimensions differ.
    """
    first, second = _checked(x, y)
    a, b = _centred(first), _centred(second)
    if min(len(a), len(b)) >= a.shape[1]:
        return _frechet(first.mean(0), a.T @ a, second.mean(0), b.T @ b)
    singular = np.linalg.svd(a @ b.T, compute_uv=False)
    apart = ((first.mean(0) - second.mean(0)) ** 2).sum()
    return float(max(apart + (a**2).sum() + (b**2).sum() - 2 * singular.sum(), 0.0))


def _frechet(mean1: Vector, covariance1: Matrix, mean2: Vector, covariance2: Matrix) -> float:
    factor = _factor(covariance1)
    cross = _roots(factor.T @ covariance2 @ factor)
    apart = ((mean1 - mean2) ** 2).sum()
    return float(max(apart + np.trace(covariance1) + np.trace(covariance2) - 2 * cross, 0.0))


def frechet_from_moments(mean1: ArrayLike, covariance1: ArrayLike, mean2: ArrayLike, covariance2: ArrayLike) -> float:
    """The same distance from means (d,) and covariances (d, d)."""
    m1, c1, m2, c2 = (np.asarray(part, dtype=np.float64) for part in (mean1, covariance1, mean2, covariance2))
    return _frechet(m1, c1, m2, c2)


# -------------------------------------------------------------------------------------------- leaving volumes out
@dataclass(frozen=True, eq=False)
class FrechetJackknife:
    """A Fréchet distance, and what it becomes with each group of the one set, then of the other, left out."""

    value: float
    without_x: Vector
    without_y: Vector


def frechet_jackknife(x: Sequence[ArrayLike], y: Sequence[ArrayLike]) -> FrechetJackknife:
    """The distance between two sets given as groups (volumes, or the volumes of a patient), each (slices, d).

    Groups are left out whole, since the slices of a volume are not independent. Raises `UserError` as
    `frechet_distance` does, and where a set has fewer than two groups.
    """
    for name, groups in (("first set", x), ("second set", y)):
        if len(groups) < 2:
            raise UserError(
                f"{name}: {len(groups)} volumes or patients, expected at least 2 to leave one out: give more"
            )
    first, second = _checked(np.concatenate(x), np.concatenate(y))
    sizes_x, sizes_y = [len(np.asarray(group)) for group in x], [len(np.asarray(group)) for group in y]
    return FrechetJackknife(
        frechet_distance(first, second),
        _frechet_without_each(first, sizes_x, second),
        _frechet_without_each(second, sizes_y, first),
    )


def _frechet_without_each(rows: Matrix, sizes: Sequence[int], other: Matrix) -> Vector:
    """The distance of `rows` to `other` without each run of `sizes` rows in turn.

    With L L^T the covariance of `other`, tr (S S_other)^(1/2) is the root sum of L^T S L. Leaving a group out takes
    V^T V off its scatter matrix, V being the group's centred rows and its weighted offset from the mean.
    """
    total, other_mean = len(rows), other.mean(0)
    mean = rows.mean(0)
    centred = rows - mean
    half = _centred(other)
    projected = _compressed(centred @ (half.T if len(other) <= other.shape[1] else _factor(half.T @ half)))
    roots = _DowndatedRoots(projected.T @ projected)
    spread, other_spread = (centred**2).sum(), (half**2).sum()
    result, start = [], 0
    for size in sizes:
        part = slice(start, start + size)
        left, start = total - size, start + size
        offset, weight = centred[part].mean(0), size * total / left
        removed = np.vstack([projected[part] - projected[part].mean(0), np.sqrt(weight) * projected[part].mean(0)])
        cross = roots.without(removed) / np.sqrt(left - 1)
        trace = (spread - ((centred[part] - offset) ** 2).sum() - weight * (offset**2).sum()) / (left - 1)
        apart = ((mean - offset * size / left - other_mean) ** 2).sum()
        result.append(max(apart + trace + other_spread - 2 * cross, 0.0))
    return np.array(result)


def _compressed(rows: Matrix) -> Matrix:
    """The same rows in their own span where there are fewer rows than columns: an n x n Gram matrix, not d x d."""
    if len(rows) >= rows.shape[1]:
        return rows
    left, singular, _ = np.linalg.svd(rows, full_matrices=False)
    compressed: Matrix = left * singular
    return compressed


class _DowndatedRoots:
    """Root sums (see `_roots`) of S - V^T V for one S (r, r) and many V (k, r).

    For k well below r the change is an integral over k x k determinants, exact to about 1e-8 of the largest root:
    sum sqrt(eig(S)) - sum sqrt(eig(S - V^T V)) = -(1/pi) int_0^inf log det(I - V (S + u^2)^-1 V^T) du,
    from int_0^inf log((a^2 + u^2) / (b^2 + u^2)) du = pi (a - b). With u = exp(s) the trapezoidal rule converges
    like exp(-pi^2 / step). Otherwise the eigenvalues are computed again.
    """

    STEP, REACH = 0.4, 24.0  # in s, about the largest root: truncation below 1e-10 of it
    WORTH = 12  # measured: from k = r / 12 on, eigenvalues are as fast

    def __init__(self, matrix: Matrix) -> None:
        self.matrix = matrix
        self.values, self.vectors = np.linalg.eigh(matrix)
        self.values = np.maximum(self.values, 0.0)
        self.largest = float(self.values.max(initial=0.0))
        kept = self.values > self.largest * len(matrix) * EPS
        self.base = float(np.sqrt(self.values[kept]).sum())

    def without(self, removed: Matrix) -> float:
        count, rank = removed.shape
        if count * self.WORTH > rank or not self.largest > 0:
            return _roots(self.matrix - removed.T @ removed)
        turned = removed @ self.vectors
        above = np.triu_indices(count)
        u = np.sqrt(self.largest) * np.exp(np.arange(-self.REACH, self.REACH + self.STEP, self.STEP))
        resolvents = 1.0 / (self.values[:, None] + u**2)
        inner = np.empty((len(u), count, count))
        inner[:, above[0], above[1]] = ((turned[above[0]] * turned[above[1]]) @ resolvents).T
        inner[:, above[1], above[0]] = inner[:, above[0], above[1]]
        _, logs = np.linalg.slogdet(np.eye(count) - inner)
        # Where the group alone spans a direction the determinant reaches 0 at u = 0, with a vanishing contribution.
        logs = np.minimum(np.nan_to_num(logs, neginf=-40.0 * count), 0.0)
        return self.base + float((logs * u).sum()) * self.STEP / np.pi


# ------------------------------------------------------------------------------------------------------ intervals
@dataclass(frozen=True)
class Jackknife:
    """An estimate with its delete-one jackknife: bias taken off, standard error, and interval about `value`."""

    value: float
    debiased: float
    error: float
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
        return Jackknife(value, value - bias, 0.0, value, value)
    freedom = variance**2 / sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
    error = float(np.sqrt(variance))
    reach = float(t.ppf(0.5 + LEVEL / 2, freedom)) * error
    return Jackknife(value, value - bias, error, value - reach, value + reach)


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
