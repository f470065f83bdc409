"""Volumes inside a page, for the viewer in `viewer.js`: one JSON object that fits a budget of bytes."""

from __future__ import annotations

import base64
import gzip
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from medlord_bench.errors import UserError
from medlord_bench.volumes.small import SIDE, SmallVolume, read_small, small_of

log = logging.getLogger("medlord_bench")

BUDGET_BYTES = 16_000_000  # of all volumes of a page, as base64
SIDES = (SIDE, 64, 48, 32)  # most voxels along an axis; the largest at which all volumes fit the budget


@dataclass(frozen=True)
class Shown:
    """A volume to offer. beside: id of the real volume whose mask it was made for. full: where the whole volume is."""

    id: str
    group: str
    title: str
    path: Path
    beside: str = ""


def script() -> str:
    """The viewer's JavaScript."""
    return files(__package__).joinpath("viewer.js").read_text(encoding="utf-8")


def embedded(volumes: Sequence[Shown], budget: int = BUDGET_BYTES) -> list[dict[str, Any]]:
    """The volumes whose files exist, on the finest grid at which all of them fit the budget; equal files give equal text.

    A damaged file is left out, with a warning.
    """
    found = [(shown, volume) for shown in volumes if (volume := _read(shown.path)) is not None]
    made: list[dict[str, Any]] = []
    for side in SIDES:
        made = [_entry(shown, _at(volume, side)) for shown, volume in found]
        if sum(len(one["hu"]) + len(one["labels"]) for one in made) <= budget:
            break
    return made


def _read(path: Path) -> SmallVolume | None:
    if not path.exists():
        return None
    try:
        return read_small(path)
    except UserError as error:
        log.warning("left out of the viewer: %s", error)
        return None


def _at(volume: SmallVolume, side: int) -> SmallVolume:
    return volume if max(volume.hu.shape) <= side else small_of(volume.hu, volume.spacing, volume.labels, side)


def _entry(shown: Shown, volume: SmallVolume) -> dict[str, Any]:
    return {
        "id": shown.id,
        "group": shown.group,
        "title": shown.title,
        "beside": shown.beside,
        "shape": volume.hu.shape,
        "spacing": volume.spacing or (1.0, 1.0, 1.0),
        "hu": _packed(volume.hu.astype("<i2").tobytes()),
        "labels": "" if volume.labels is None else _packed(volume.labels.tobytes()),
    }


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()
