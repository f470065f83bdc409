"""The volumes that a control keeps as its weights: `.npy` files and an index."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import Cohort, Grid, HUWindow, LabelMap, Run, Volume
from medlord_bench.errors import Stopped, UserError
from medlord_bench.util.files import publish, write_json
from medlord_bench.volumes.arrays import read_hu

INDEX = "index.json"


def keep(data: Cohort, ids: Sequence[str], with_labels: bool, folder: Path, run: Run) -> Path:
    """Copy volumes of the cohort, and their masks if requested, to `folder`; existing ones are not changed.

    Raises `UserError` if a mask is requested and missing, `Stopped` between two volumes.
    """
    names = {str(value): name for value, name in data.label_names.items()} if with_labels else {}
    for case_id in ids:
        if run.stop():
            raise Stopped(f"stopped before volume {case_id}, saved")
        _keep(folder / f"{case_id}.npy", data.hu(case_id))
        if with_labels:
            labels = data.labels(case_id)
            if labels is None:
                raise UserError(f"case {case_id}: no mask, but this control needs one; give masks, or remove it")
            _keep(folder / f"{case_id}.labels.npy", labels)
    window = list(data.protocol.grid.hu_window)
    write_json(folder / INDEX, {"ids": list(ids), "names": names, "hu_window": window})
    return folder


def _keep(path: Path, values: NDArray[Any]) -> None:
    if not path.exists():
        publish(path, lambda temporary: np.save(temporary, np.asarray(values), allow_pickle=False))


@dataclass(frozen=True)
class Kept:
    """Volumes of a weights folder, read on demand. names: label value to region name."""

    folder: Path
    ids: tuple[str, ...]
    names: Mapping[int, str]
    hu_window: HUWindow

    @classmethod
    def read(cls, folder: Path) -> Kept:
        found = json.loads((folder / INDEX).read_text())
        names = {int(value): name for value, name in found["names"].items()}
        low, high = found["hu_window"]
        return cls(folder, tuple(found["ids"]), names, (low, high))

    def hu(self, index: int) -> NDArray[np.int16]:
        """int16 (X, Y, Z) in HU, a read-only memory map."""
        return read_hu(self.folder / f"{self.ids[index]}.npy")

    def label_map(self, index: int) -> LabelMap:
        labels = np.load(self.folder / f"{self.ids[index]}.labels.npy", mmap_mode="r", allow_pickle=False)
        return LabelMap(labels, np.eye(4), self.names)


def rounded(hu: NDArray[Any], window: tuple[int, int]) -> NDArray[np.int16]:
    """Integer HU within the window, int16."""
    return np.clip(np.rint(hu), *window).astype(np.int16)


def on_grid(hu: NDArray[Any], grid: Grid) -> Volume:
    """A sample in the bench's format: integer HU within the grid's window, with the grid's affine."""
    return Volume(rounded(hu, grid.hu_window), grid.affine())
