"""Nearest training volumes, distances between real patients, and the threshold of a copy. Uses neither torch nor
voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .matching import Found

SAME_PATIENT_DISTANCE = 0.1  # relative distance up to which two real volumes are treated as of one patient


@dataclass(frozen=True)
class Nearest:
    """The nearest training volume (its index), the correlation of detail with it, and the relative distance to it.

    relative: the distance (1 - correlation) to the nearest patient over the mean distance to the next few, as in the
    ratio test of Lowe 2004 and in Carlini et al. 2023: near 0 for a copy, near 1 for a volume that is no closer to one
    patient than to others. An average or a blurred volume is close to all patients, and so its relative distance is
    near 1.
    """

    training: int
    correlation: float
    relative: float


def nearest(found: Found, patients: Sequence[str], neighbours: int, own: str | None = None) -> Nearest:
    """The best match of each patient except `own`; of these, the nearest relative to the next `neighbours` - 1.

    With a single neighbour there is no other patient, and the relative distance is the distance itself.
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
    """The patients; those whose volumes are (nearly) identical are merged.

    left_out: for each training volume, the nearest one of another patient. A patient that is in the training set twice
    under two names would otherwise define the smallest distance of two patients.
    """
    name = {patient: patient for patient in patients}
    for patient, other in zip(patients, left_out, strict=True):
        if other.relative <= SAME_PATIENT_DISTANCE:
            old, new = sorted((name[patient], name[patients[other.training]]), reverse=True)
            name = {key: new if value == old else value for key, value in name.items()}
    return [name[patient] for patient in patients]


@dataclass(frozen=True)
class Threshold:
    """Below `value` a volume is a copy. rank: `value` is the rank-th smallest distance of n left-out training
    volumes."""

    value: float
    rank: int
    n: int
    capped: bool

    @classmethod
    def of(cls, relative: Sequence[float], rate: float, largest: float) -> Threshold:
        """The conformal threshold: of volumes like the left-out ones a fraction rank / (n + 1) is below it.

        rank: the largest with a fraction at or below `rate`, but at least 1 (then the fraction is above `rate`).
        largest: the threshold never exceeds it.
        """
        n = len(relative)
        rank = max(1, math.floor(rate * (n + 1) + 1e-9))
        value = sorted(relative)[rank - 1]
        return cls(min(value, largest), rank, n, value > largest)

    @property
    def nominal(self) -> float:
        """The fraction of unseen patients' volumes below the threshold by chance; an upper bound if the threshold is
        capped."""
        return self.rank / (self.n + 1)

    def p_value(self, copies: int, n: int) -> float:
        """p-value of at least this many copies among n volumes of unseen patients: exact for exchangeable volumes.

        The number below the rank-th of n others is beta-binomial, since the threshold is itself estimated.
        """
        from scipy.stats import betabinom

        return float(betabinom.sf(copies - 1, n, self.rank, self.n + 1 - self.rank))
