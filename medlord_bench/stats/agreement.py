"""Agreement of readers: weighted kappa of one reader with itself or another, Krippendorff's alpha of several."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from medlord_bench.errors import UserError
from medlord_bench.stats.arrays import Matrix, Vector

Difference = Literal["nominal", "ordinal", "interval"]


def weighted_kappa(first: ArrayLike, second: ArrayLike, levels: int) -> float | None:
    """Cohen's kappa with quadratic weights of two ratings of each case (Cohen 1968). None if all ratings are equal.

    Ratings are whole numbers from 1 to `levels`. Raises `UserError` for others, and if the two differ in number.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (first, second))
    for values in (a, b):
        if values.ndim != 1 or values.shape != a.shape or not np.isin(values, np.arange(1, levels + 1)).all():
            raise UserError(f"weighted kappa: expected pairs of ratings from 1 to {levels}")
    if not len(a):
        return None
    expected = float(np.mean(np.subtract.outer(a, b) ** 2))
    return None if expected == 0 else 1 - float(np.mean((a - b) ** 2)) / expected


def krippendorff_alpha(ratings: ArrayLike, difference: Difference) -> float | None:
    """Krippendorff's alpha of ratings (readers, cases), NaN where a reader did not rate a case; 1 is full agreement.

    Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability". difference: how far two ratings are apart; `ordinal`
    counts the ratings between them, so it depends on how often each is used. Other programs' "ordinal" weights differ:
    name this one. None if no case has two ratings, or all ratings are equal.
    """
    table = np.asarray(ratings, dtype=np.float64)
    if table.ndim != 2:
        raise UserError(f"krippendorff's alpha: ratings of shape {table.shape}, expected (readers, cases)")
    values = np.unique(table[~np.isnan(table)])
    coincidences = _coincidences(table, values)
    totals = coincidences.sum(0)
    n = totals.sum()
    apart = _differences(values, totals, difference)
    expected = float((np.outer(totals, totals) * apart).sum()) / (n * (n - 1)) if n > 1 else 0.0
    return None if expected == 0 else 1 - float((coincidences * apart).sum()) / n / expected


def _coincidences(table: Matrix, values: Vector) -> Matrix:
    """(V, V): how often two values meet in a case, each case weighted by 1 / (its ratings - 1)."""
    found = np.zeros((len(values), len(values)))
    for case in table.T:
        known = case[~np.isnan(case)]
        if len(known) > 1:
            counts = (known[:, None] == values).sum(0)
            found += (np.outer(counts, counts) - np.diag(counts)) / (len(known) - 1)
    return found


def _differences(values: Vector, totals: Vector, difference: Difference) -> Matrix:
    """(V, V): squared differences of the values."""
    if difference == "nominal":
        return 1.0 - np.eye(len(values))
    if difference == "interval":
        return np.asarray(np.subtract.outer(values, values) ** 2)
    middle = np.cumsum(totals) - totals / 2
    return np.asarray(np.subtract.outer(middle, middle) ** 2)
