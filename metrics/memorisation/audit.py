"""Nearest training volumes, distances between real patients, and the threshold of a copy. Uses neither torch nor
voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SAME_PATIENT_DISTANCE = 0.1  # relative distance up to which two real volumes are treated as of one patient
LEAST_RELATIVE = 1e-3  # relative distance: what is below counts as this in a logarithm
LEAST_SPREAD = 0.02  # of a logarithm: where no two patients are alike
CHANCE_PATCHES = 5.0  # agreeing patches that two patients may have by chance, so that 2 against 0 is no copy


@dataclass(frozen=True, eq=False)
class Found:
    """The matches of a volume. training: indices of training volumes. likeness: of each, the correlation of detail of
    the whole stage or the agreeing patches of the local stage."""

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

    patches: those that agree with this patient better than with any other, each weighted by how much better.
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


@dataclass(frozen=True)
class Scale:
    """Brings the local stage's relative distances to the scale of the whole stage, so that the smaller of both is fair.

    Between different patients the two have different medians and spreads. Without this, the threshold is set by the stage
    whose smallest distances between patients are smaller, and copies that the other stage separates well are missed.
    whole, part: (median, median less lower quartile) of the logarithms of the left-out volumes' distances. The medians and
    quartiles are of the same volumes as the threshold, so the rate is no longer exact: in simulation .053 to .057 where
    .048 is nominal (20 and 40 left out), and nominal from 100 on.
    largest: a part that is not this much closer to one patient than to others is no copy on any scale.
    """

    whole: tuple[float, float]
    part: tuple[float, float]
    largest: float

    @classmethod
    def of(cls, left_out: Sequence[Match], largest: float) -> Scale:
        """The scale of left-out training volumes; where the local stage found nothing its distance is 1."""
        whole, part = (
            np.log(np.clip(values, LEAST_RELATIVE, None))
            for values in ([one.whole.relative for one in left_out], [_of_part(one) for one in left_out])
        )
        return cls(_centre(whole), _centre(part), largest)

    def brought(self, match: Match) -> Match:
        """The match with its part's relative distance on the scale of the whole stage."""
        if match.part is None:
            return match
        logarithm = math.log(max(match.part.relative, LEAST_RELATIVE))
        found = math.exp(self.whole[0] + self.whole[1] * (logarithm - self.part[0]) / self.part[1])
        if match.part.relative >= self.largest:
            found = max(found, self.largest)
        return replace(match, part=replace(match.part, relative=min(found, 1.0)))


def _of_part(match: Match) -> float:
    return match.part.relative if match.part else 1.0


def _centre(logarithms: NDArray[np.float64]) -> tuple[float, float]:
    lower, median = np.quantile(logarithms, (0.25, 0.5)).tolist()
    return median, max(median - lower, LEAST_SPREAD)


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
