"""How far one sample of numbers is above another: the Hodges-Lehmann shift."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medlord_bench.errors import UserError
from medlord_bench.stats.arrays import LEVEL


@dataclass(frozen=True)
class Shift:
    """The typical difference of x from y; `low` and `high` are None if there are too few values for an interval."""

    value: float
    low: float | None
    high: float | None


def shift(x: ArrayLike, y: ArrayLike) -> Shift:
    """The median of all differences of a value of x and one of y, with its 95 % interval of order statistics.

    Hodges and Lehmann 1963; the interval inverts the Mann-Whitney test at its normal approximation (Hollander, Wolfe &
    Chicken 2014, 4.3). It holds for any distribution of the values, heavy tails included, if x and y differ by a shift.
    Raises `UserError` for no values and for values that are not finite.
    """
    from scipy.stats import norm

    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    for name, values in (("first", first), ("second", second)):
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            raise UserError(f"shift: {name} sample of {values.size} values, expected finite numbers, one per unit")
    apart = np.sort(np.subtract.outer(first, second), axis=None)
    n, m = len(first), len(second)
    error = math.sqrt(n * m * (n + m + 1) / 12)
    rank = math.floor(n * m / 2 - float(norm.ppf(0.5 + LEVEL / 2)) * error)
    value = float(np.median(apart))
    return Shift(value, *((float(apart[rank - 1]), float(apart[-rank])) if rank >= 1 else (None, None)))
