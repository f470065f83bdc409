"""The radiomic distance against one reference, from features that are read once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from medlord_bench import stats
from medlord_bench.contracts import Item
from medlord_bench.contracts.results import Note, notes
from medlord_bench.errors import UserError
from medlord_bench.volumes.arrays import load_state

from .measured import Measured, by_unit, heavy_tails, too_few_units
from .radiomic_config import FRDConfig
from .sides import OTHER, Features, Sides
from .volume_config import WHOLE

EQUAL = 1e-9  # squared distance for each feature below which sets are equal: rounding alone
NAMED = 3  # features that a note names


def names_of(preprocessing: Mapping[str, Any]) -> tuple[str, ...]:
    """The features of an extractor, in the order of its vector: of each filtered image, then the diagnostics."""
    images, features = preprocessing["images"], preprocessing["features"]
    return (*(f"{image}_{feature}" for image in images for feature in features), *preprocessing["diagnostics"])


def missing(item: Item, names: Sequence[str]) -> str:
    """The features of a volume that are not numbers, as the reason of its failure; empty if there is none."""
    if item.path is None:
        return ""
    rows = load_state(item.path).get(WHOLE)
    if rows is None or rows.shape != (1, len(names)):
        found = "none" if rows is None else str(rows.shape)
        raise UserError(f"{item.path}: features {WHOLE!r}: {found}, expected (1, {len(names)}): extract them again")
    places = np.flatnonzero(~np.isfinite(rows[0]))
    if not len(places):
        return ""
    return f"{len(places)} of {len(names)} radiomic features are not numbers, the first: {names[places[0]]}"


class RadiomicComparisons:
    """The samples against either reference."""

    def __init__(self, sides: Sides, config: FRDConfig, names: Sequence[str]) -> None:
        self.sides, self.config, self.names = sides, config, names
        self.features = Features(sides, (WHOLE,))

    def against(self, split: str) -> Iterator[Measured]:
        """`frd` against "train" or "test"."""
        n_reference = self.sides.ok
        few = too_few_units(self.features, split)
        if few:
            yield Measured("frd", reason=few, n_reference=n_reference)
            return
        samples, real = self.features.groups("samples", WHOLE), self.features.groups(split, WHOLE)
        rows, others = np.concatenate(samples), np.concatenate(real)
        varying = int((np.ptp(others, axis=0) > 0).sum())
        if not varying:
            yield Measured("frd", reason=f"no feature varies between the real {split} volumes", n_reference=n_reference)
            return
        found = stats.scaled_frechet_jackknife(samples, real)
        if found.value < EQUAL * varying:
            reason = (
                "the samples' features equal those of the real volumes: the logarithm of a distance of 0 has no value"
            )
            yield Measured("frd", reason=reason, n_reference=n_reference)
            return
        yield self._logarithm(found, split, varying, stats.largest_shifts(rows, others, NAMED))

    def _logarithm(
        self, found: stats.FrechetJackknife, split: str, varying: int, shifts: Sequence[tuple[int, float]]
    ) -> Measured:
        interval = stats.jackknife(found.value, found.without_x, found.without_y, squared=True)
        value, logs = math.log(found.value), [_logs(part) for part in (found.without_x, found.without_y)]
        without = by_unit(self.features, split, *logs)
        left_out = len(self.names) - varying
        named = ", ".join(f"{self.names[place]} {shift:+.2g}" for place, shift in shifts)
        floor, floor_note = self._floor(split)
        return Measured(
            "frd",
            value=value,
            low=math.log(max(interval.low, EQUAL)),
            high=math.log(interval.high),
            interval="95 % delete-one jackknife by volume and patient, computed for the fourth root of the squared distance",
            p=self._p(split),
            p_of=f"samples and real {split} volumes of one distribution: {self.config.permutations} relabellings of volumes",
            n_reference=self.sides.ok,
            floor=floor,
            floor_note=floor_note,
            notes=(
                *notes("context", f"largest differences of a mean, in standard deviations of real volumes: {named}"),
                *notes("counts", f"{left_out} of {len(self.names)} features are constant in them" if left_out else ""),
                *self._rank(varying),
                *heavy_tails(value, without),
            ),
            without=without,
        )

    def _rank(self, varying: int) -> tuple[Note, ...]:
        n = self.sides.ok
        text = (
            f"{n} volumes, {varying} features: each covariance has rank {n - 1}, and most of the value is its bias; read "
            "p, and the value beside its floor"
        )
        return notes("caution", text if n <= varying else "")

    def _p(self, split: str) -> float:
        """Of one volume a patient, so that units are alike."""
        samples, real = (self.features.vectors(name) for name in ("samples", split))
        return stats.scaled_frechet_p(samples, real, self.config.seed, self.config.permutations)

    def _floor(self, split: str) -> tuple[float | None, str]:
        """The other real split in units of the same reference."""
        note = self.sides.floor_note(split)
        if not self.sides.has_floor:
            return None, note
        other, real = (np.concatenate(self.features.groups(name, WHOLE)) for name in (OTHER[split], split))
        value = stats.scaled_frechet(other, real)
        return (math.log(value), note) if value > EQUAL else (None, "no floor: both real splits have equal features")


def _logs(squared: stats.Vector) -> stats.Vector:
    return np.log(np.maximum(squared, EQUAL))
