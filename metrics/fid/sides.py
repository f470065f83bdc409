"""The compared volumes and their features: each file is read once for all numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import Item
from medlord_bench.errors import UserError
from medlord_bench.util.seeds import numpy_rng
from medlord_bench.volumes.arrays import load_state

OTHER = {"train": "test", "test": "train"}
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Sides:
    """The sets of a comparison. n: volumes per side, including failed samples; `ok`: those used for the value."""

    samples: Sequence[Item]
    real: Mapping[str, Sequence[Item]]
    n: int
    failed: int
    minimum: int
    counts: Mapping[str, int]
    metric: str = "fid"

    @property
    def ok(self) -> int:
        return self.n - self.failed

    @classmethod
    def of(cls, items: Mapping[str, Sequence[Item]], minimum: int, seed: int, metric: str = "fid") -> Sides:
        """Choose equal numbers: the bias of the distance depends on n, so unequal ones are not comparable.

        A real split with fewer than `minimum` volumes is not a reference and does not reduce n.
        """
        real = _usable(items)
        counts = {"samples": len(items["samples"]), **{split: len(known) for split, known in real.items()}}
        n = min([counts["samples"], *(len(known) for known in real.values() if len(known) >= minimum)])
        samples = subset(items["samples"], n, seed, "samples")
        failed = sum(item.path is None for item in samples)
        counts["failed samples"] = sum(item.path is None for item in items["samples"])
        chosen = {split: subset(known, n - failed, seed, split) for split, known in real.items()}
        return cls(samples, chosen, n, failed, minimum, counts, metric)

    @classmethod
    def of_real(cls, items: Mapping[str, Sequence[Item]], minimum: int, seed: int) -> Sides:
        """The real volumes as `of` chooses them for as many samples as there can be. n is 0 if both splits are small."""
        real = _usable(items)
        n = min((len(known) for known in real.values() if len(known) >= minimum), default=0)
        chosen = {split: subset(known, n, seed, split) for split, known in real.items()}
        return cls((), chosen, n, 0, minimum, {"samples": n, **{split: len(known) for split, known in real.items()}})

    @property
    def failures(self) -> str:
        """Failures outside the measured subset, for the note, so that all are reported."""
        total = self.counts["failed samples"]
        return f"{total} of all {self.counts['samples']} samples failed" if total > self.failed else ""

    def reason(self, split: str) -> str:
        """Why there can be no value against `split`; empty if there is one."""
        least = f"{self.metric} needs at least {self.minimum} on each side"
        if not self.counts["samples"]:
            return "the generator has no unconditional samples"
        if self.counts["samples"] < self.minimum:
            return f"{self.counts['samples']} samples; {least}: raise the number of samples"
        if self.counts[split] < self.minimum:
            return f"{self.counts[split]} real {split} volumes; {least}"
        if self.ok < self.minimum:
            return f"{self.failed} of {self.n} samples failed, {self.ok} remain; {least}" + (
                f"; {self.failures}" if self.failures else ""
            )
        return ""

    def selected(self, split: str) -> str:
        """The subset used, for the note, if it is not all volumes."""
        parts = []
        if self.n < self.counts["samples"]:
            parts.append(f"{self.n} of {self.counts['samples']} samples")
        if self.ok < self.counts[split]:
            parts.append(f"{self.ok} of {self.counts[split]} real {split} volumes")
        return f"equal n on both sides: a seeded subset, {' and '.join(parts)}" if parts else ""

    @property
    def has_floor(self) -> bool:
        """Whether both real splits have as many volumes as the samples."""
        return all(len(chosen) == self.ok for chosen in self.real.values())

    def floor_note(self, split: str) -> str:
        other = OTHER[split]
        if self.has_floor:
            return f"{self.ok} real {other} volumes against the same {self.ok} real {split} volumes"
        needed = max(self.minimum, self.ok)
        return f"no floor: {self.counts[other]} real {other} volumes, at least {needed} are needed"


def _usable(items: Mapping[str, Sequence[Item]]) -> dict[str, list[Item]]:
    return {split: [item for item in items[f"real:{split}"] if item.path is not None] for split in OTHER}


def subset(items: Sequence[Item], n: int, seed: int, source: str) -> list[Item]:
    """`n` of the items, the same for any order; a larger n adds to a smaller one's."""
    ordered = sorted(items, key=lambda item: item.id)
    if n >= len(ordered):
        return ordered
    return [ordered[i] for i in sorted(numpy_rng(seed, "fid", source).permutation(len(ordered))[:n])]


class Features:
    """The features of the chosen volumes, by unit: a sample, or a real patient with all its volumes."""

    def __init__(self, sides: Sides, planes: Sequence[str]) -> None:
        self.planes = planes
        self._width: tuple[int, Path] | None = None
        self._units = {name: self._read(items) for name, items in {"samples": sides.samples, **sides.real}.items()}

    def _read(self, items: Sequence[Item]) -> dict[str, list[Mapping[str, Rows]]]:
        units: dict[str, list[Mapping[str, Rows]]] = {}
        for item in items:
            if item.path is not None:
                units.setdefault(item.patient or item.id, []).append(self._volume(item.path))
        return units

    def _volume(self, path: Path) -> Mapping[str, Rows]:
        state = load_state(path)
        for plane in self.planes:
            rows = state.get(plane)
            if rows is None or rows.ndim != 2 or not len(rows) or not np.isfinite(rows).all():
                raise UserError(
                    f"{path}: no finite (slices, channels) array {plane!r}; expected features: extract again"
                )
            self._width = self._width or (rows.shape[1], path)
            if rows.shape[1] != self._width[0]:
                raise UserError(
                    f"{path}: features of {rows.shape[1]} dimensions, those of {self._width[1]} have {self._width[0]}; "
                    "expected one extractor on both sides: extract again"
                )
        return {plane: state[plane] for plane in self.planes}

    def units(self, name: str) -> list[str]:
        """The sample ids, or the patients of a real split, in order."""
        return list(self._units[name])

    def groups(self, name: str, plane: str) -> list[Rows]:
        """(slices, d) of each unit of "samples", "train" or "test"."""
        return [
            unit[0][plane] if len(unit) == 1 else np.concatenate([volume[plane] for volume in unit])
            for unit in self._units[name].values()
        ]

    def vectors(self, name: str) -> Rows:
        """(units, planes x d): the mean slice of each plane, one after the other, of the first volume of each unit."""
        return np.stack(
            [np.concatenate([unit[0][plane].mean(0) for plane in self.planes]) for unit in self._units[name].values()]
        )
