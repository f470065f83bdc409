"""Agreement of readers: weighted kappa of one reader with itself or another, Krippendorff's alpha of several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medlord_bench.errors import UserError
from medlord_bench.stats.arrays import LEVEL, Matrix, Vector
from medlord_bench.util.seeds import numpy_rng

BOOTSTRAPS = 500
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


def over_cases(
    statistic: Callable[[NDArray[np.intp]], float | None], cases: int, seed: int, bootstraps: int = BOOTSTRAPS
) -> tuple[float, float] | None:
    """Percentile bootstrap of a statistic of case numbers, drawn with replacement; their readers stay together.

    A draw without a value (all ratings equal) counts as none; None if that is more than one draw in twenty.
    """
    rng = numpy_rng(seed, "cases")
    draws = [statistic(rng.integers(0, cases, cases)) for _ in range(bootstraps if cases > 1 else 0)]
    known = [one for one in draws if one is not None]
    if not known or len(known) < 0.95 * len(draws):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high


def _coincidences(table: Matrix, values: Vector) -> Matrix:
    """(V, V): how often two values meet in a case, each case weighted by 1 / (its ratings - 1)."""
    counts = (table[:, :, None] == values).sum(0).astype(np.float64)
    ratings = counts.sum(1)
    weighted = counts[ratings > 1] / (ratings[ratings > 1, None] - 1)
    return np.asarray(weighted.T @ counts[ratings > 1] - np.diag(weighted.sum(0)))


def _differences(values: Vector, totals: Vector, difference: Difference) -> Matrix:
    """(V, V): squared differences of the values."""
    if difference == "nominal":
        return 1.0 - np.eye(len(values))
    if difference == "interval":
        return np.asarray(np.subtract.outer(values, values) ** 2)
    middle = np.cumsum(totals) - totals / 2
    return np.asarray(np.subtract.outer(middle, middle) ** 2)
