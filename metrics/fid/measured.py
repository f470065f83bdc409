"""One number of the family, before it is assigned to a generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medlord_bench import stats
from medlord_bench.contracts.results import Note, notes

from .sides import Features

LEAST_UNITS = 4  # samples or patients for the jackknife; with fewer, a variance is meaningless


@dataclass(frozen=True)
class Measured:
    """A value, or the reason why there is none. region: a plane, or empty for all of them.

    n_reference: number of real volumes. without: the value with each sample left out, and with each real patient,
    by id; None if that was not computed. points: (number of samples, value) that it is extrapolated from.
    """

    metric: str
    region: str = ""
    value: float | None = None
    reason: str = ""
    low: float | None = None
    high: float | None = None
    interval: str = ""
    p: float | None = None
    p_of: str = ""
    n_reference: int | None = None
    floor: float | None = None
    floor_note: str = ""
    notes: tuple[Note, ...] = ()
    points: tuple[tuple[float, float], ...] = ()
    without: tuple[dict[str, float], dict[str, float]] | None = None


def too_few_units(features: Features, split: str, least: int = LEAST_UNITS) -> str:
    """Why units cannot be left out or relabelled; empty if they can."""
    samples, patients = len(features.units("samples")), len(features.units(split))
    if min(samples, patients) >= least:
        return ""
    return f"{samples} samples and {patients} {split} patients, at least {least} of each are needed"


def by_unit(
    features: Features, split: str, samples: stats.Vector, real: stats.Vector
) -> tuple[dict[str, float], dict[str, float]]:
    """Values without each sample and without each patient of `split`, by id."""
    ids = features.units("samples"), features.units(split)
    return dict(zip(ids[0], samples.tolist(), strict=True)), dict(zip(ids[1], real.tolist(), strict=True))


def heavy_tails(value: float, without: Sequence[Mapping[str, float]], squared: bool = False) -> tuple[Note, ...]:
    """A caution if one unit decides the interval. without: per set, the value without each unit, by id."""
    found = stats.tails(value, *(list(part.values()) for part in without), squared=squared)
    return notes("caution", found.caution(*(list(part) for part in without)))
