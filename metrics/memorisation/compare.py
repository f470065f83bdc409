"""From pictures to the audit: every volume's nearest training volume, and the threshold from real patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import Grid, Item, Shape
from medlord_bench.errors import UserError
from medlord_bench.util.hashing import digest
from medlord_bench.volumes.arrays import load_state
from medlord_bench.volumes.thumbnails import thumbnail_shape

from .audit import SAME_PATIENT_DISTANCE, Match, Nearest, Part, Scale, Threshold, merged, nearest, nearest_part
from .local import LocalMatcher
from .matching import Matcher
from .scores import Audit, Side

if TYPE_CHECKING:
    from .config import MemorisationConfig

Picture = NDArray[np.float32]


def compare(
    sides: Mapping[str, Sequence[Item]], grid: Grid, config: MemorisationConfig, advance: Callable[[], None]
) -> Audit | None:
    """The audit of `sides` (source to items with states); None if all training volumes are identical."""
    real = real_side(sides["real:train"], [*sides["real:val"], *sides["real:test"]], grid, config, advance)
    if real is None:
        return None
    return Audit(
        side(real.stages, real.scale, sides["samples"], advance),
        real.held_out,
        real.ids,
        real.stages.patients,
        _twins(real.ids, real.stages.apart),
        real.threshold,
        single=real.single,
        weak_below=config.minimum,
    )


@dataclass(frozen=True, eq=False)
class Real:
    """What the real volumes of a run decide. scale: of the local stage's distances. held_out: matches of those that the
    generator has not seen. single: whether each patient has one volume."""

    stages: Stages
    scale: Scale
    ids: Sequence[str]
    held_out: Side
    threshold: Threshold
    single: bool


_kept: dict[str, Real] = {}  # the last one: the contestants of a run have the same real volumes


def real_side(
    training: Sequence[Item],
    held_out: Sequence[Item],
    grid: Grid,
    config: MemorisationConfig,
    advance: Callable[[], None],
) -> Real | None:
    """The real volumes, compared once for all contestants that a process audits; None if training volumes are identical."""
    files = [
        [str(item.path), item.path and item.path.stat().st_mtime_ns, patient(item)] for item in (*training, *held_out)
    ]
    key = digest([files, len(training), grid.model_dump(mode="json"), config.model_dump(mode="json")])
    if key not in _kept:
        _kept.clear()
        stages = Stages(training, grid, config)
        if not stages.neighbours:
            return None
        left_out = []
        for i in calibration(len(training), config.calibration):
            advance()
            left_out.append(stages.left_out(i))
        scale = Scale.of(left_out, config.largest)
        _kept[key] = Real(
            stages,
            scale,
            [item.id for item in training],
            side(stages, scale, held_out, advance),
            Threshold.of([scale.brought(one).relative for one in left_out], config.rate, config.largest),
            all(len({patient(item) for item in items}) == len(items) for items in (training, held_out)),
        )
    return _kept[key]


def side(stages: Stages, scale: Scale, items: Sequence[Item], advance: Callable[[], None]) -> Side:
    """The matches of volumes that are not training volumes, both stages on one scale."""
    matches = []
    for item in items:
        advance()
        matches.append(scale.brought(stages.match(item)))
    return Side([item.id for item in items], matches)


class Stages:
    """Both stages on the training volumes.

    apart: of each training volume, the nearest one of another patient. patients: of each, those of identical volumes
    merged. neighbours: number of patients that every volume is compared with; 0 if all are identical. A training volume
    is compared with one patient fewer than there are, so samples are compared with no more.
    """

    def __init__(self, training: Sequence[Item], grid: Grid, config: MemorisationConfig) -> None:
        self.training, self.pictures = training, Pictures(grid.shape, config)
        names = [patient(item) for item in training]
        self.whole = whole_stage(self.pictures, training, grid, config)
        self.found = [
            self.whole.find(self.pictures.whole(item), own) for item, own in zip(training, names, strict=True)
        ]
        self.apart = [nearest(one, names, _others(names, config)) for one in self.found]
        self.patients = merged(self.apart, names)
        self.neighbours = _others(self.patients, config)
        self.local = LocalMatcher(lambda i: self.pictures.local(training[i]), self.patients, self.neighbours)

    def match(self, item: Item) -> Match:
        """What both stages find of a volume that is not a training volume."""
        whole = nearest(self.whole.find(self.pictures.whole(item)), self.patients, self.neighbours)
        return Match(whole, self._part(item))

    def left_out(self, i: int) -> Match:
        """What both stages find of training volume `i` among the other patients."""
        own = self.patients[i]
        return Match(nearest(self.found[i], self.patients, self.neighbours, own), self._part(self.training[i], own))

    def _part(self, item: Item, own: str | None = None) -> Part | None:
        found = self.local.find(self.pictures.local(item), own)
        return nearest_part(found, self.patients, self.neighbours, own)


def whole_stage(pictures: Pictures, items: Sequence[Item], grid: Grid, config: MemorisationConfig) -> Matcher:
    """The whole stage on the volumes of `items`."""
    shape = pictures.shapes["picture"]
    cell = [length * n / m for length, n, m in zip(grid.spacing or (1.0, 1.0, 1.0), grid.shape, shape, strict=True)]
    stack = np.stack([pictures.whole(item) for item in items])
    return Matcher(stack, [patient(item) for item in items], cell, config.neighbours)


def calibration(n: int, most: int) -> list[int]:
    """The training volumes of n that are left out: all, or `most` evenly spaced ones."""
    return sorted({int(i) for i in np.linspace(0, n - 1, min(n, most)).round()})


def _others(patients: Sequence[str], config: MemorisationConfig) -> int:
    """Number of patients that every volume is compared with, including a left-out one, which has one fewer."""
    return min(config.neighbours, len(set(patients)) - 1)


def _twins(ids: Sequence[str], left_out: Sequence[Nearest]) -> list[tuple[str, str]]:
    """Pairs of (nearly) identical volumes of two patients."""
    pairs = {
        frozenset((id, ids[one.training]))
        for id, one in zip(ids, left_out, strict=True)
        if one.relative <= SAME_PATIENT_DISTANCE
    }
    return sorted((min(pair), max(pair)) for pair in pairs)


def patient(item: Item) -> str:
    return item.patient or item.id


class Pictures:
    """The pictures in the states of items, each of the shape that the protocol's grid has in it."""

    def __init__(self, shape: Shape, config: MemorisationConfig) -> None:
        self.shapes = {
            "picture": thumbnail_shape(shape, config.cells),
            "local": thumbnail_shape(shape, config.local_cells),
        }

    def whole(self, item: Item) -> Picture:
        return self._read(item, "picture")

    def local(self, item: Item) -> Picture:
        return self._read(item, "local").astype(np.float32)

    def _read(self, item: Item, name: Literal["picture", "local"]) -> Picture:
        assert item.path is not None
        picture: Picture = load_state(item.path)[name]
        if picture.shape != self.shapes[name]:
            raise UserError(
                f"{item.path}: a picture of {picture.shape} for {item.id}, expected {self.shapes[name]}: its volume is "
                "not on the protocol's grid; compute it again"
            )
        return picture
