"""Types of the statistics, their common level, and the validation of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medlord_bench.errors import UserError

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]
Rows = NDArray[np.floating[Any]]
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
        raise UserError(f"{name}: features contain NaN or infinity, expected finite numbers: extract them again")
    return rows


def same_features(x: ArrayLike, y: ArrayLike) -> tuple[Matrix, Matrix]:
    first, second = finite_rows(x, "first set"), finite_rows(y, "second set")
    if first.shape[1] != second.shape[1]:
        raise UserError(
            f"features of {first.shape[1]} and {second.shape[1]} dimensions, expected the same extractor on both sides: "
            "extract both sets with one extractor"
        )
    return first, second


def finite_groups(x: Sequence[ArrayLike], y: Sequence[ArrayLike], least: int) -> tuple[list[Rows], list[Rows]]:
    """Two sets given as groups (volumes, or the volumes of a patient), each (slices, d) with at least one row, checked.

    Rows keep their precision: float32 features of many slices are not copied to float64 as a whole. Raises `UserError`
    if a set has fewer than `least` groups, a group is not (slices, d) or not finite, or the dimensions differ.
    """
    sides = []
    for name, groups in (("first set", x), ("second set", y)):
        if len(groups) < least:
            raise UserError(f"{name}: {len(groups)} volumes or patients, expected at least {least}: give more")
        rows = [np.asarray(group) for group in groups]
        for group in rows:
            if group.ndim != 2 or not len(group) or not np.isfinite(group).all():
                raise UserError(
                    f"{name}: a volume's features of shape {group.shape}, expected finite numbers (slices, d): "
                    "extract them again"
                )
        sides.append(rows)
    widths = sorted({group.shape[1] for rows in sides for group in rows})
    if len(widths) > 1:
        raise UserError(
            f"features of {widths[0]} and {widths[-1]} dimensions, expected the same extractor on both sides: "
            "extract both sets with one extractor"
        )
    return sides[0], sides[1]
