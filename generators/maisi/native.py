"""MAISI's own grid: how images, label maps and samples get there and back.

One rule: the field of view stays, the number of voxels changes (`volume_fit`, "resize": clip to the window, then
trilinear, blurred against aliasing where an axis shrinks; labels by nearest neighbour), and the voxel size with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import Cohort, Grid, LabelMap, Request, Shape, Volume
from medlord_bench.nn.intensity import Window
from medlord_bench.store import publish
from medlord_bench.volume_fit import Placement, fit, fit_labels, place, restore

Spacing = tuple[float, float, float]


@runtime_checkable
class Spaced(Protocol):
    """A cohort that knows each case's voxel size, as the bench's own does."""

    def spacing(self, case_id: str) -> Spacing: ...


def hu_on(hu: NDArray[np.int16], shape: Shape, window: Window) -> NDArray[np.int16]:
    """An image on the grid `shape`, clipped to `window`."""
    return fit(Volume(hu, np.eye(4)), Grid(shape=shape, hu_window=window), "resize").volume.hu


def labels_on(labels: NDArray[np.uint8], shape: Shape) -> NDArray[np.uint8]:
    """A label map on the grid `shape`."""
    return fit_labels(LabelMap(labels, np.eye(4), {}), Grid(shape=shape), "resize").labels


def placement(source: Request | Volume, shape: Shape) -> Placement:
    """How what is asked for, or given, lies on the grid `shape`."""
    if isinstance(source, Volume):
        return place(source.shape, source.affine, shape, "resize")
    return place(source.grid.shape, source.grid.affine(), shape, "resize")


def back(hu: NDArray[np.int16], placed: Placement) -> Volume:
    """A volume on MAISI's grid, brought back to where it was asked for."""
    if placed.source_shape == placed.shape:
        return Volume(hu, placed.source_affine)
    return restore(Volume(hu, placed.affine), placed)


def spacing_on(spacing: Spacing | None, source: Shape, shape: Shape) -> Spacing:
    """The voxel size in mm on the grid `shape` of an image of `source` voxels; 1 mm stands for an unknown one."""
    x, y, z = (mm * old / new for mm, old, new in zip(spacing or (1.0, 1.0, 1.0), source, shape, strict=True))
    return x, y, z


def case_spacing(data: Cohort, case_id: str, shape: Shape) -> Spacing:
    """A case's voxel size on MAISI's grid: its own where the cohort knows it, else the protocol's."""
    grid = data.protocol.grid
    return spacing_on(data.spacing(case_id) if isinstance(data, Spaced) else grid.spacing, grid.shape, shape)


class NativeImages:
    """A cohort's images on MAISI's grid. Resampled ones are kept in `folder` while a training runs."""

    def __init__(self, data: Cohort, shape: Shape, window: Window, folder: Path) -> None:
        self.data, self.shape, self.window, self.folder = data, shape, window, folder

    def hu(self, case_id: str) -> NDArray[np.int16]:
        """int16 `shape`, HU, memory-mapped; clipped to the window only where it was resampled."""
        if self.data.protocol.grid.shape == self.shape:
            return self.data.hu(case_id)
        path = self.folder / f"{case_id}.npy"
        if not path.exists():
            values = hu_on(np.asarray(self.data.hu(case_id)), self.shape, self.window)
            self.folder.mkdir(parents=True, exist_ok=True)
            publish(path, lambda temporary: _save(temporary, values))
        images: NDArray[np.int16] = np.load(path, mmap_mode="r", allow_pickle=False)
        return images


def _save(path: Path, values: NDArray[np.int16]) -> None:
    with open(path, "wb") as file:
        np.save(file, values)
