"""Conversion between the protocol's grid and a generator's own grid, with one rule for both directions.

A generator whose architecture requires its own grid (a cube, or fewer voxels than the protocol's to fit a card)
trains on a `NativeCohort` and converts its samples with `from_native`. If both grids are the same, nothing is done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import Cohort, FitMode, Grid, LabelMap, Shape, Split, Volume
from medlord_bench.util.files import publish
from medlord_bench.volumes.arrays import read_hu
from medlord_bench.volumes.grid import fit, fit_labels, place, restore


def native_grid(grid: Grid, shape: Shape, mode: FitMode) -> Grid:
    """The model's grid of `shape`: same HU window, and the spacing of its voxels."""
    spacing = grid.spacing
    if spacing and mode == "resize":
        x, y, z = (mm * old / new for mm, old, new in zip(spacing, grid.shape, shape, strict=True))
        spacing = (x, y, z)
    return grid.model_copy(update={"shape": shape, "spacing": spacing})


def to_native(volume: Volume, shape: Shape, window: tuple[int, int], mode: FitMode) -> Volume:
    """A volume on the protocol's grid, fitted to the model's and clipped to `window`."""
    if volume.shape == shape:
        return volume
    return fit(volume, Grid(shape=shape, hu_window=window), mode).volume


def labels_to_native(labels: NDArray[np.uint8], shape: Shape, mode: FitMode) -> NDArray[np.uint8]:
    """A label map on the protocol's grid, fitted to the model's by nearest neighbour."""
    if labels.shape == shape:
        return labels
    return fit_labels(LabelMap(labels, np.eye(4), {}), Grid(shape=shape), mode).labels


def from_native(volume: Volume, grid: Shape, affine: NDArray[np.float64], mode: FitMode, outside: int) -> Volume:
    """A volume on the model's grid, restored to the protocol's; `outside` HU where the model has no voxel."""
    if volume.shape == grid:
        return Volume(volume.hu, affine)
    return restore(volume, place(grid, affine, volume.shape, mode), outside)


class NativeCohort:
    """A cohort on the model's grid, clipped to its window: `contracts.Cohort`. Each volume is computed on first use
    and stored in `folder`, from which patches are read fast.
    """

    def __init__(self, data: Cohort, grid: Grid, mode: FitMode, folder: Path) -> None:
        self.data, self.mode, self.folder = data, mode, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.protocol = data.protocol.model_copy(update={"grid": grid})
        self.label_names: Mapping[int, str] = data.label_names

    def ids(self, split: Split) -> Sequence[str]:
        return self.data.ids(split)

    def hu(self, case_id: str) -> NDArray[np.int16]:
        path = self.folder / f"{case_id}.npy"
        if not path.exists():
            grid, affine = self.protocol.grid, self.data.protocol.grid.affine()
            made = to_native(Volume(np.asarray(self.data.hu(case_id)), affine), grid.shape, grid.hu_window, self.mode)
            publish(path, partial(np.save, arr=made.hu, allow_pickle=False))
        return read_hu(path)

    def labels(self, case_id: str) -> NDArray[np.uint8] | None:
        labels = self.data.labels(case_id)
        return None if labels is None else labels_to_native(labels, self.protocol.grid.shape, self.mode)


def on_native_grid(data: Cohort, grid: Grid, mode: FitMode, folder: Path) -> Cohort:
    """The cohort on the model's grid, stored in `folder`: `data` itself, not clipped to the window, if shapes agree."""
    return data if grid.shape == data.protocol.grid.shape else NativeCohort(data, grid, mode, folder)
