"""Distances between the distributions of two samples of numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medlord_bench.errors import UserError
from medlord_bench.stats.arrays import Vector, same_features
from medlord_bench.stats.two_sample_statistics import TwoSample, two_sample


def energy_distance(x: ArrayLike, y: ArrayLike, seed: int, permutations: int = 2000) -> TwoSample:
    """The energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| of rows (n, regions) and (m, regions), one row per unit.

    Székely & Rizzo 2013 (J. Stat. Plan. Inference 143), in its unbiased form (X and X' are different units), so that it
    is about zero, and may be negative, if both come from one distribution, at any n. The caller must standardise
    columns; otherwise the widest one dominates. Raises `UserError` below three rows a side, for NaN or infinity (a unit
    that lacks a region needs a stated value), and if the numbers of columns differ.
    """
    from scipy.spatial.distance import cdist

    first, second = same_features(x, y)
    rows = np.concatenate([first, second])
    return two_sample(-cdist(rows, rows), len(first), seed, permutations, "energy distance")


def wasserstein1(x: ArrayLike, y: ArrayLike) -> float:
    """The 1-Wasserstein distance of two samples of numbers, in their unit (scipy.stats.wasserstein_distance)."""
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(*_samples(x, y)))


@dataclass(frozen=True)
class KolmogorovSmirnov:
    """The largest difference of two empirical distribution functions (0 to 1), and its two-sided p-value."""

    value: float
    p: float


def ks(x: ArrayLike, y: ArrayLike) -> KolmogorovSmirnov:
    """The two-sample Kolmogorov-Smirnov test (scipy.stats.ks_2samp). With ties the p-value is too large, never
    small."""
    from scipy.stats import ks_2samp

    found = ks_2samp(*_samples(x, y))
    return KolmogorovSmirnov(float(found.statistic), float(found.pvalue))


def variance_ratio(x: ArrayLike, y: ArrayLike) -> float | None:
    """Variance of x over that of y, both with n - 1: below 1, x is less varied. None if all of y are equal."""
    first, second = _samples(x, y)
    if min(len(first), len(second)) < 2:
        raise UserError(f"variance ratio: {len(first)} and {len(second)} values, expected at least 2 each: give more")
    below = float(second.var(ddof=1))
    return float(first.var(ddof=1)) / below if np.ptp(second) > 0 else None


def _samples(x: ArrayLike, y: ArrayLike) -> tuple[Vector, Vector]:
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    for name, values in (("first", first), ("second", second)):
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            raise UserError(
                f"{name} sample: {values.size} values of shape {values.shape}, expected finite numbers, one per unit"
            )
    return first, second
