"""How well a reader tells real from synthetic: sensitivity index and area under the curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medlord_bench.errors import UserError
from medlord_bench.stats.arrays import LEVEL, Vector
from medlord_bench.util.seeds import numpy_rng

BOOTSTRAPS = 2000


def d_prime(hits: int, signals: int, false_alarms: int, noises: int) -> float:
    """Sensitivity z(hit rate) - z(false alarm rate), 0 for guessing; half a case is added to each cell.

    Macmillan & Creelman 2005; the log-linear correction is Hautus 1995. Raises `UserError` unless each count lies within
    its number of cases, and both numbers are positive.
    """
    from scipy.stats import norm

    for count, of in ((hits, signals), (false_alarms, noises)):
        if not 0 <= count <= of or of == 0:
            raise UserError(f"d': {count} of {of}; expected a count of a positive number of cases")
    return float(norm.ppf((hits + 0.5) / (signals + 1)) - norm.ppf((false_alarms + 0.5) / (noises + 1)))


@dataclass(frozen=True)
class Area:
    """The area under the ROC curve: how often a case of the first set is rated above one of the second."""

    value: float
    low: float
    high: float


def area(first: ArrayLike, second: ArrayLike, seed: int, bootstraps: int = BOOTSTRAPS) -> Area:
    """AUC of ratings of two sets of cases, (n,) and (m,), or (n, readers) and (m, readers) averaged over readers.

    Ties count half (Mann & Whitney 1947). The interval is the percentile bootstrap over cases, which keeps the ratings of
    a case by all readers together. Raises `UserError` for an empty set or ratings that are not finite.
    """
    x, y = (_columns(values) for values in (first, second))
    if x.shape[1] != y.shape[1]:
        raise UserError(f"auc: ratings of {x.shape[1]} and {y.shape[1]} readers, expected the same readers")
    rng = numpy_rng(seed, "auc")
    above = [np.sign(np.subtract.outer(a, b)) / 2 + 0.5 for a, b in zip(x.T, y.T, strict=True)]
    pairs: Vector = np.mean(above, axis=0)
    draws = [
        pairs[np.ix_(rng.integers(0, len(x), len(x)), rng.integers(0, len(y), len(y)))].mean()
        for _ in range(bootstraps)
    ]
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return Area(float(pairs.mean()), low, high)


def _columns(values: ArrayLike) -> Vector:
    rows = np.asarray(values, dtype=np.float64)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        raise UserError(f"auc: ratings of shape {rows.shape}, expected finite ratings of at least one case")
    return rows
