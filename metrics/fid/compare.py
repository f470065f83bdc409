"""Which volumes the Fréchet distance compares, and the comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medlord_bench import stats
from medlord_bench.contracts import Item
from medlord_bench.errors import UserError
from medlord_bench.seeds import numpy_rng
from medlord_bench.states import load_state

LEAST_GROUPS = 4  # volumes or patients to leave out one by one; of fewer, a variance says nothing
OTHER = {"train": "test", "test": "train"}


@dataclass(frozen=True)
class Sides:
    """The sets of a comparison. n: volumes a side, failed samples included; `ok`: those that the value rests on."""

    samples: Sequence[Item]
    real: Mapping[str, Sequence[Item]]
    n: int
    failed: int
    minimum: int
    counts: Mapping[str, int]

    @property
    def ok(self) -> int:
        return self.n - self.failed

    @classmethod
    def of(cls, items: Mapping[str, Sequence[Item]], minimum: int, seed: int) -> Sides:
        """Choose equal numbers: the bias of the distance depends on n, so unequal ones would not compare.

        A real split with fewer than `minimum` volumes is no reference and does not hold the others down.
        """
        real = {split: [item for item in items[f"real:{split}"] if item.path is not None] for split in OTHER}
        counts = {"samples": len(items["samples"]), **{split: len(known) for split, known in real.items()}}
        n = min([counts["samples"], *(len(known) for known in real.values() if len(known) >= minimum)])
        samples = _subset(items["samples"], n, seed, "samples")
        failed = sum(item.path is None for item in samples)
        counts["failed samples"] = sum(item.path is None for item in items["samples"])
        chosen = {split: _subset(known, n - failed, seed, split) for split, known in real.items()}
        return cls(samples, chosen, n, failed, minimum, counts)

    @property
    def failures(self) -> str:
        """Failures beyond the subset that was measured, for the note: none of them goes unsaid."""
        total = self.counts["failed samples"]
        return f"; {total} of all {self.counts['samples']} samples failed" if total > self.failed else ""

    def reason(self, split: str) -> str:
        """Why there can be no value against `split`; empty where there can."""
        least = f"fid needs at least {self.minimum} on each side"
        if not self.counts["samples"]:
            return "the generator has no unconditional samples"
        if self.counts["samples"] < self.minimum:
            return f"{self.counts['samples']} samples; {least}: raise the number of samples"
        if self.counts[split] < self.minimum:
            return f"{self.counts[split]} real {split} volumes; {least}"
        if self.ok < self.minimum:
            return f"{self.failed} of {self.n} samples failed, {self.ok} are left; {least}{self.failures}"
        return ""


def _subset(items: Sequence[Item], n: int, seed: int, source: str) -> list[Item]:
    """`n` of the items, the same ones whatever their order; a larger n adds to a smaller one's."""
    ordered = sorted(items, key=lambda item: item.id)
    if n >= len(ordered):
        return ordered
    return [ordered[i] for i in sorted(numpy_rng(seed, "fid", source).permutation(len(ordered))[:n])]


@dataclass(frozen=True)
class Comparison:
    """A distance in one plane (`region`) or their mean (empty), with its jackknife and floor."""

    region: str
    value: float
    n: int
    jackknife: stats.Jackknife | None
    no_interval: str
    floor: float | None
    floor_n: int | None
    floor_note: str
    note: str


Groups = list[NDArray[np.float32]]


def _groups(items: Sequence[Item], plane: str) -> Groups:
    """Features of a plane, one array per patient (per volume where there is no patient)."""
    by_patient: dict[str, list[NDArray[np.float32]]] = {}
    for item in items:
        if item.path is None:
            continue
        state = load_state(item.path)
        if plane not in state or state[plane].ndim != 2 or not np.isfinite(state[plane]).all():
            raise UserError(
                f"{item.path}: no finite (slices, channels) array {plane!r}; expected features: extract again"
            )
        by_patient.setdefault(item.patient or item.id, []).append(state[plane])
    return [np.concatenate(parts) for parts in by_patient.values()]


def _pooled(groups: Groups) -> NDArray[np.float32]:
    return np.concatenate(groups)


def compare(sides: Sides, split: str, planes: Sequence[str]) -> list[Comparison]:
    """The samples against `split`: the mean of the planes first, then each plane."""
    other = sides.real[OTHER[split]]
    has_floor = len(other) == sides.ok
    measured = [_plane(sides, split, plane, has_floor) for plane in planes]
    notes = [_selected(sides, split), *(found.why for found in measured[:1] if found.why)]
    mean = _Measured(
        float(np.mean([one.value for one in measured])),
        tuple(np.mean([one.without[side] for one in measured], axis=0) for side in range(len(measured[0].without))),
        float(np.mean([one.floor for one in measured])) if has_floor else None,
        measured[0].why,
    )
    floor_note = _floor_note(sides, split, has_floor)
    return [
        Comparison(
            region,
            one.value,
            sides.ok,
            stats.jackknife(one.value, *one.without) if one.without else None,
            one.why,
            one.floor,
            sides.ok if has_floor else None,
            floor_note,
            "".join(f"; {note}" for note in notes if note),
        )
        for region, one in zip(["", *planes], [mean, *measured], strict=True)
    ]


@dataclass(frozen=True)
class _Measured:
    value: float
    without: tuple[stats.Vector, ...]
    floor: float | None
    why: str


def _plane(sides: Sides, split: str, plane: str, has_floor: bool) -> _Measured:
    samples, real = _groups(sides.samples, plane), _groups(sides.real[split], plane)
    floor = None
    if has_floor:
        floor = stats.frechet_distance(_pooled(_groups(sides.real[OTHER[split]], plane)), _pooled(real))
    if min(len(samples), len(real)) < LEAST_GROUPS:
        groups = f"{len(samples)} samples and {len(real)} {split} patients"
        why = f"no interval: {groups}, at least {LEAST_GROUPS} of each are needed to leave one out"
        return _Measured(stats.frechet_distance(_pooled(samples), _pooled(real)), (), floor, why)
    found = stats.frechet_jackknife(samples, real)
    return _Measured(found.value, (found.without_x, found.without_y), floor, "")


def _selected(sides: Sides, split: str) -> str:
    """Which of what there is was used, where it was not all."""
    parts = []
    if sides.n < sides.counts["samples"]:
        parts.append(f"{sides.n} of {sides.counts['samples']} samples")
    if sides.ok < sides.counts[split]:
        parts.append(f"{sides.ok} of {sides.counts[split]} real {split} volumes")
    return f"equal n on both sides: a seeded subset, {' and '.join(parts)}" if parts else ""


def _floor_note(sides: Sides, split: str, has_floor: bool) -> str:
    other = OTHER[split]
    if has_floor:
        return f"{sides.ok} real {other} volumes against the same {sides.ok} real {split} volumes"
    return f"no floor: {sides.counts[other]} real {other} volumes, at least {max(sides.minimum, sides.ok)} are needed"
