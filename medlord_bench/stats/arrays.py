"""Types of the statistics, their common level, and the check that features go through."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medlord_bench.errors import UserError

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]
EPS = float(np.finfo(np.float64).eps)
LEVEL = 0.95  # nominal coverage of every interval


def finite_rows(features: ArrayLike, name: str) -> Matrix:
    """Features as float64 (n, d), checked."""
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[0] < 2:
        raise UserError(
            f"{name}: features of shape {rows.shape}, expected at least two rows of (n, d): give more samples"
        )
    if not np.isfinite(rows).all():
        raise UserError(f"{name}: features hold NaN or infinity, expected finite numbers: extract them again")
    return rows


def same_features(x: ArrayLike, y: ArrayLike) -> tuple[Matrix, Matrix]:
    first, second = finite_rows(x, "first set"), finite_rows(y, "second set")
    if first.shape[1] != second.shape[1]:
        raise UserError(
            f"features of {first.shape[1]} and {second.shape[1]} dimensions, expected the same extractor on both sides: "
            "extract both sets with one extractor"
        )
    return first, second
