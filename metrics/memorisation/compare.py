"""From thumbnails to the audit: every volume's nearest training volume, and the threshold from real patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import Grid, Item, Shape
from medlord_bench.errors import UserError
from medlord_bench.volumes.arrays import load_state
from medlord_bench.volumes.thumbnails import thumbnail_shape

from .audit import SAME_PATIENT_DISTANCE, Nearest, Threshold, merged, nearest
from .matching import Found, Matcher
from .scores import Audit, Side

if TYPE_CHECKING:
    from .config import MemorisationConfig

Picture = NDArray[np.float32]


def compare(
    sides: Mapping[str, Sequence[Item]], grid: Grid, config: MemorisationConfig, advance: Callable[[], None]
) -> Audit | None:
    """The audit of `sides` (source to items with states); None if all training volumes are identical.

    Every training volume is left out with its patient and compared with the others, as a sample is with all. The
    others are one patient fewer, so samples too are compared with no more patients than that.
    """
    shape = thumbnail_shape(grid.shape, config.cells)
    cell = [length * n / m for length, n, m in zip(grid.spacing or (1.0, 1.0, 1.0), grid.shape, shape, strict=True)]
    training, held_out = sides["real:train"], [*sides["real:val"], *sides["real:test"]]
    pictures = np.stack([_picture(item, shape) for item in training])
    names = [_patient(item) for item in training]
    matcher = Matcher(pictures, names, cell, config.neighbours)

    def find(picture: Picture, own: str | None = None) -> Found:
        advance()
        return matcher.find(picture, own)

    found = [find(picture, own) for picture, own in zip(pictures, names, strict=True)]
    left_out = [nearest(one, names, _others(names, config)) for one in found]
    patients = merged(left_out, names)
    neighbours = _others(patients, config)
    if not neighbours:
        return None
    apart = [nearest(one, patients, neighbours, own) for one, own in zip(found, patients, strict=True)]

    def side(items: Sequence[Item]) -> Side:
        return Side(
            [item.id for item in items],
            [nearest(find(_picture(item, shape)), patients, neighbours) for item in items],
        )

    ids = [item.id for item in training]
    return Audit(
        side(sides["samples"]),
        side(held_out),
        ids,
        patients,
        _twins(ids, left_out),
        Threshold.of([one.relative for one in apart], config.rate, config.largest),
        single=all(len({_patient(item) for item in items}) == len(items) for items in (training, held_out)),
        weak_below=config.minimum,
    )


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


def _patient(item: Item) -> str:
    return item.patient or item.id


def _picture(item: Item, shape: Shape) -> Picture:
    assert item.path is not None
    picture: Picture = load_state(item.path)["picture"]
    if picture.shape != shape:
        raise UserError(
            f"{item.path}: a picture of {picture.shape} for {item.id}, expected {shape}: its volume is not on the "
            "protocol's grid; compute it again"
        )
    return picture
