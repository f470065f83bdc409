"""Who is nearest to whom, how near real patients are to one another, and hence what a copy is. No torch, no pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .matching import Found

SAME_PATIENT_DISTANCE = 0.1  # relative distance up to which two real volumes are treated as one patient's


@dataclass(frozen=True)
class Nearest:
    """The nearest training volume (its index), the correlation of detail with it, and the relative distance to it.

    relative: the distance (1 - correlation) to the nearest patient over the mean distance to the next few, as in the
    ratio test of Lowe 2004 and in Carlini et al. 2023: near 0 for a copy, near 1 for a volume that is no nearer to one
    patient than to others. An average or a blurred volume is near to everybody, and so to nobody.
    """

    training: int
    correlation: float
    relative: float


def nearest(found: Found, patients: Sequence[str], neighbours: int, own: str | None = None) -> Nearest:
    """Of what was found, the best of each patient but `own`; of these, the nearest over the next `neighbours` - 1.

    With a single neighbour there is nobody to compare with, and the relative distance is the distance itself.
    """
    best: dict[str, tuple[float, int]] = {}
    for training, correlation in zip(found.training.tolist(), found.correlation.tolist(), strict=True):
        patient = patients[training]
        if patient != own:
            best[patient] = min(best.get(patient, (math.inf, -1)), (max(1 - correlation, 0.0), training))
    (distance, training), *others = sorted(best.values())[:neighbours]
    scale = float(np.mean([other for other, _ in others])) if others else 1.0
    return Nearest(training, 1 - distance, distance / scale if scale > 0 else 0.0)


def merged(left_out: Sequence[Nearest], patients: Sequence[str]) -> list[str]:
    """The patients, those whose volumes are (nearly) the same made one.

    left_out: of each training volume, its nearest of another patient. A patient that stands in the training set twice
    under two names would otherwise look like the closest that two patients can be.
    """
    name = {patient: patient for patient in patients}
    for patient, other in zip(patients, left_out, strict=True):
        if other.relative <= SAME_PATIENT_DISTANCE:
            old, new = sorted((name[patient], name[patients[other.training]]), reverse=True)
            name = {key: new if value == old else value for key, value in name.items()}
    return [name[patient] for patient in patients]


@dataclass(frozen=True)
class Threshold:
    """Below `value` a volume is a copy. rank: of n left-out training volumes the rank-th nearest lies there."""

    value: float
    rank: int
    n: int
    capped: bool

    @classmethod
    def of(cls, relative: Sequence[float], rate: float, largest: float) -> Threshold:
        """The conformal threshold: of volumes like the left-out ones a share rank / (n + 1) lies below it.

        rank: the largest that keeps the share at or below `rate`, but at least 1 (then the share is above `rate`).
        largest: the threshold never exceeds it.
        """
        n = len(relative)
        rank = max(1, math.floor(rate * (n + 1) + 1e-9))
        value = sorted(relative)[rank - 1]
        return cls(min(value, largest), rank, n, value > largest)

    @property
    def nominal(self) -> float:
        """The share of unseen patients' volumes that fall below the threshold by chance; at most, where capped."""
        return self.rank / (self.n + 1)

    def p_value(self, copies: int, n: int) -> float:
        """Of at least so many copies among n volumes if these were unseen patients: exact, for exchangeable volumes.

        The number below the rank-th of n others is beta-binomial, since the threshold is itself estimated.
        """
        from scipy.stats import betabinom

        return float(betabinom.sf(copies - 1, n, self.rank, self.n + 1 - self.rank))
