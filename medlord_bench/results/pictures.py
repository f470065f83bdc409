"""The pictures in a run folder: `results/montage.json`, `results/pictures/` (mid planes of the volumes to show) and
`results/volumes/` (volumes to scroll through)."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import PositiveFloat, field_validator

from medlord_bench.contracts import FrozenConfig
from medlord_bench.contracts.validation import read_json
from medlord_bench.util.files import write_text

FILE = "montage.json"
SAFE = re.compile(r"[^\w.@+-]")
ITEM_HASH = re.compile(r"-[0-9a-f]{10}$")  # of its content, at the end of a case's item id


class MontageItem(FrozenConfig):
    """One volume. path: its mid planes (`volumes.planes`), relative to the run folder, absolute once read; None without a
    picture. failed: why the sample failed."""

    id: str = ""
    path: str | None = None
    failed: str | None = None


class MontageRow(FrozenConfig):
    """Volumes of one kind. kind: of the step that made them, e.g. "samples". contestant: "real" for real volumes."""

    title: str = ""
    kind: str = ""
    contestant: str = ""
    items: tuple[MontageItem, ...] = ()


class Montage(FrozenConfig):
    """window: HU drawn black and white. spacing: voxel size along X, Y, Z in mm, if the protocol has one. regions: name
    of a region that samples are conditioned on -> its labels in the masks."""

    window: tuple[float, float] = (-1000.0, 1000.0)
    spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    rows: tuple[MontageRow, ...] = ()
    regions: dict[str, tuple[int, ...]] = {}

    @field_validator("window")
    @classmethod
    def _ordered(cls, window: tuple[float, float]) -> tuple[float, float]:
        if not window[0] < window[1]:
            raise ValueError("expected two HU values, low then high")
        return window


def short_id(item: str) -> str:
    """An item's id without the hash of its content, for a reader."""
    return ITEM_HASH.sub("", item)


def picture_path(kind: str, contestant: str, item: str) -> str:
    """The path of a volume's mid planes, below the run folder."""
    return f"results/pictures/{kind}/{SAFE.sub('_', contestant)}/{SAFE.sub('_', item)}.safetensors"


def volume_path(kind: str, contestant: str, item: str) -> str:
    """The path of a volume on a coarse grid (`volumes.small`), below the run folder."""
    return f"results/volumes/{kind}/{SAFE.sub('_', contestant)}/{SAFE.sub('_', item)}.npz"


def write_montage(folder: Path, montage: Montage) -> None:
    """Write `montage.json` of a run folder, atomically."""
    write_text(folder / "results" / FILE, montage.model_dump_json(indent=1))


def read_montage(folder: Path) -> Montage | None:
    """The montage of a run folder with absolute paths; None without a file. Raises `UserError` naming a damaged one."""
    path = folder / "results" / FILE
    if not path.exists():
        return None
    found = read_json(Montage, path)
    return found.model_copy(update={"rows": tuple(_located(row, folder) for row in found.rows)})


def _located(row: MontageRow, folder: Path) -> MontageRow:
    items = (
        item if item.path is None else item.model_copy(update={"path": str(folder / item.path)}) for item in row.items
    )
    return row.model_copy(update={"items": tuple(items)})
