"""Nearest training volumes, distances between real patients, and the threshold of a copy. Uses neither torch nor
voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SAME_PATIENT_DISTANCE = 0.1  # relative distance up to which two real volumes are treated as of one patient
CHANCE_PATCHES = 5.0  # agreeing patches that two patients may have by chance, so that 2 against 0 is no copy


@dataclass(frozen=True, eq=False)
class Found:
    """The matches of a volume. training: indices of training volumes. likeness: of each, the correlation of detail of
    the whole stage or the number of agreeing patches of the local stage."""

    training: NDArray[np.intp]
    likeness: NDArray[np.float64]


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
    (correlation, training), *others = _best(found, patients, own)[:neighbours]
    distance = max(1 - correlation, 0.0)
    scale = float(np.mean([max(1 - other, 0.0) for other, _ in others])) if others else 1.0
    return Nearest(training, 1 - distance, distance / scale if scale > 0 else 0.0)


@dataclass(frozen=True)
class Part:
    """The training volume that most patches of a volume agree with (its index), their number, and the relative distance.

    relative: the agreeing patches of the next few patients on average, over those of the nearest one, both increased by
    `CHANCE_PATCHES`: near 0 where many patches agree with one patient only, at most 1.
    """

    training: int
    patches: float
    relative: float


def nearest_part(found: Found, patients: Sequence[str], neighbours: int, own: str | None = None) -> Part | None:
    """The patient, except `own`, that most patches agree with; None if there is none or no other to compare it with."""
    best = _best(found, patients, own)[:neighbours]
    if not best or neighbours < 2:
        return None
    (patches, training), *others = best
    expected = sum(count for count, _ in others) / (neighbours - 1)
    return Part(training, patches, (expected + CHANCE_PATCHES) / (patches + CHANCE_PATCHES))


def _best(found: Found, patients: Sequence[str], own: str | None) -> list[tuple[float, int]]:
    """(likeness, training volume) of each patient except `own`, the most similar first."""
    best: dict[str, tuple[float, int]] = {}
    for training, likeness in zip(found.training.tolist(), found.likeness.tolist(), strict=True):
        patient = patients[training]
        if patient != own and (patient not in best or (likeness, -training) > (best[patient][0], -best[patient][1])):
            best[patient] = (likeness, training)
    return sorted(best.values(), key=lambda one: (-one[0], one[1]))


Kind = Literal["whole", "part"]


@dataclass(frozen=True)
class Match:
    """What both stages found of a volume. part: None if the local stage found nothing."""

    whole: Nearest
    part: Part | None

    @property
    def kind(self) -> Kind:
        """The stage with the smaller relative distance."""
        return "part" if self.part and self.part.relative < self.whole.relative else "whole"

    @property
    def nearest(self) -> Nearest | Part:
        return self.part if self.part and self.kind == "part" else self.whole

    @property
    def relative(self) -> float:
        """The smaller relative distance of the two stages: one number, so that one threshold keeps the nominal rate."""
        return self.nearest.relative


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
