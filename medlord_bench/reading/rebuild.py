"""Volumes on the study's one grid, so that nothing but the anatomy and its picture differs between sources."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import FrozenConfig, Grid, Shape, Volume
from medlord_bench.errors import UserError
from medlord_bench.volumes.grid import fit, resample

from .protocol import StudyProtocol

REPEAT_SHIFT = 1  # voxels along every axis by which a hidden repeat is moved, so that its bytes differ


class StudyGrid(FrozenConfig):
    """The grid of every volume of a study: voxels along R, A, S, their size in mm, and the HU that are kept."""

    shape: Shape
    spacing: tuple[float, float, float]
    window: tuple[int, int]

    @property
    def bytes(self) -> int:
        """Of one volume, int16."""
        x, y, z = self.shape
        return 2 * x * y * z


def grid_of(protocol: StudyProtocol, first: Volume) -> StudyGrid:
    """The protocol's grid; what it leaves open is that of the first volume of the first source."""
    return StudyGrid(
        shape=protocol.shape or first.shape, spacing=protocol.spacing or first.spacing, window=protocol.window
    )


def rebuilt(volume: Volume, grid: StudyGrid, repeat: int = 0) -> NDArray[np.int16]:
    """int16 HU (X, Y, Z) of `grid.shape`: clipped, resampled to the spacing, cropped or padded about the centre.

    repeat: 1 for a hidden repeat, which is moved by a voxel along each axis. Raises `UserError` if nothing but padding
    would be left.
    """
    if not np.allclose(volume.spacing, grid.spacing, rtol=1e-3):
        volume = resample(volume, grid.spacing, grid.window)
    fitted = fit(volume, Grid(shape=grid.shape, spacing=grid.spacing, hu_window=grid.window), "crop-pad").volume.hu
    if int(fitted.min()) == int(fitted.max()):
        raise UserError(f"on the study's grid {grid.shape} the volume is constant ({int(fitted.min())} HU)")
    return _moved(fitted) if repeat else fitted


def _moved(hu: NDArray[Any]) -> NDArray[np.int16]:
    padded = np.pad(hu, [(0, REPEAT_SHIFT)] * 3, mode="edge")
    return np.ascontiguousarray(padded[REPEAT_SHIFT:, REPEAT_SHIFT:, REPEAT_SHIFT:])


def affine_of(grid: StudyGrid) -> NDArray[np.float64]:
    """Of every volume of the study: the voxel size, and the first voxel at the origin."""
    return np.diag([*grid.spacing, 1.0])
