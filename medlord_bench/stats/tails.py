"""Heavy tails: does one volume decide an interval? And an interval that allows for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from medlord_bench.stats.arrays import LEVEL, Vector
from medlord_bench.stats.intervals import Jackknife, jackknife
from medlord_bench.util.seeds import numpy_rng

DRAWS = 4000  # simulated sets behind a limit


@dataclass(frozen=True)
class Tails:
    """The unit (volume or patient) with the largest share of a jackknife variance.

    share: of the variance of all sets, 0 to 1. limit: its 95 % quantile for normal features. place: index of the set and
    of the unit in it. without: the value without that unit. wide: the jackknife with fewer degrees of freedom.
    """

    share: float
    limit: float
    place: tuple[int, int]
    without: float
    wide: Jackknife

    @property
    def heavy(self) -> bool:
        return self.share > self.limit

    def caution(self, *names: Sequence[str]) -> str:
        """What a reader must know; empty if the tails are not heavy. names: the units of each set."""
        if not self.heavy:
            return ""
        which, unit = self.place
        return (
            f"heavy tails: {self.share:.0%} of the interval's variance are of one volume or patient, {names[which][unit]} "
            f"(normal features: at most {self.limit:.0%} in {LEVEL:.0%} of sets); {self.without:.4g} without it; interval "
            f"that allows for such tails {self.wide.low:.4g} to {self.wide.high:.4g}; the mean over many sets may lie above"
        )


def tails(value: float, *without_each: ArrayLike, squared: bool = False) -> Tails:
    """Whether a single volume or patient decides the interval of `jackknife`, whose arguments these are.

    False alarms are at most 5 % for normal features: influences of such features on a distance are linear or quadratic
    in them, and `limit` is the largest share's 95 % quantile among squares of single normal numbers, the heaviest of
    these. (Influences that are linear exceed it in far fewer than 5 %.) No alarm does not prove light tails: a sample
    that contains none of the rare volumes cannot show them. Raises `UserError` as `jackknife`.
    """
    wide = jackknife(value, *without_each, squared=squared, heavy=True)
    parts: list[Vector] = [np.asarray(part, dtype=np.float64) for part in without_each]
    scaled = [np.sqrt(np.sqrt(part)) if squared else part for part in parts]
    shares = [(len(part) - 1) / len(part) * (part - part.mean()) ** 2 for part in scaled]
    total = sum(float(one.sum()) for one in shares)
    which = int(np.argmax([one.max() for one in shares]))
    unit = int(shares[which].argmax())
    share = float(shares[which][unit]) / total if total > 0 else 0.0
    return Tails(share, _limit(*map(len, parts)), (which, unit), float(parts[which][unit]), wide)


@lru_cache(maxsize=64)
def _limit(*sizes: int) -> float:
    """The 95 % quantile of the largest share among squares of normal numbers in sets of these sizes."""
    rng = numpy_rng("heavy tails", *sizes)
    largest, total = np.zeros(DRAWS), np.zeros(DRAWS)
    for size in sizes:
        squares = rng.standard_normal((DRAWS, size)) ** 2
        # The variance of a set's mean: each unit's part falls as 1 / size^2.
        influence = ((squares - squares.mean(1, keepdims=True)) / size) ** 2
        largest, total = np.maximum(largest, influence.max(1)), total + influence.sum(1)
    return float(np.quantile(largest / total, LEVEL))
