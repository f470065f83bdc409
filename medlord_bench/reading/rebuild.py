"""Volumes on the study's one grid, so that nothing but the anatomy and its picture differs between sources."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import FrozenConfig, Grid, Shape, Volume
from medlord_bench.errors import UserError
from medlord_bench.volumes.grid import fit, resample

from .protocol import StudyProtocol


class StudyGrid(FrozenConfig):
    """The grid of every case of a study: voxels along R, A, S, their size in mm, and the HU that are kept."""

    shape: Shape
    spacing: tuple[float, float, float]
    window: tuple[int, int]

    @property
    def bytes(self) -> int:
        """Of one volume, int16."""
        x, y, z = self.shape
        return 2 * x * y * z


def grid_of(protocol: StudyProtocol, first: Volume, margin: int) -> StudyGrid:
    """The grid of the cases: the protocol's, which is the field of every volume, less `margin` voxels along each axis.

    What the protocol leaves open is that of the first volume of the first source.
    """
    x, y, z = (size - margin for size in protocol.shape or first.shape)
    if min(x, y, z) < 1:
        raise UserError(
            f"field 'shape': {protocol.shape or first.shape}: a case is {margin} voxels smaller along each axis, so nothing "
            "is left; expected more voxels"
        )
    return StudyGrid(shape=(x, y, z), spacing=protocol.spacing or first.spacing, window=protocol.window)


def rebuilt(volume: Volume, grid: StudyGrid, margin: int = 0, at: Sequence[int] = (0, 0, 0)) -> NDArray[np.int16]:
    """int16 HU (X, Y, Z) of `grid.shape`: clipped, resampled to the spacing, cropped or padded about the centre to the field.

    The field is `margin` voxels larger than the grid along each axis; the case is cut from it at the voxel `at`. First
    readings and repeats are made alike, so that no plane of a case says which it is. Raises `UserError` if nothing but
    padding would be left.
    """
    if not np.allclose(volume.spacing, grid.spacing, rtol=1e-3):
        volume = resample(volume, grid.spacing, grid.window)
    x, y, z = grid.shape
    field = Grid(shape=(x + margin, y + margin, z + margin), spacing=grid.spacing, hu_window=grid.window)
    fitted = fit(volume, field, "crop-pad").volume.hu
    case = fitted[tuple(slice(start, start + size) for start, size in zip(at, grid.shape, strict=True))]
    if int(case.min()) == int(case.max()):
        raise UserError(
            f"constant ({int(case.min())} HU) on the study's grid {grid.shape} of {grid.spacing} mm; expected a picture: give a "
            "larger shape, or leave the volume out of its source"
        )
    return np.ascontiguousarray(case)


def affine_of(grid: StudyGrid) -> NDArray[np.float64]:
    """Of every volume of the study: the voxel size, and the first voxel at the origin."""
    return np.diag([*grid.spacing, 1.0])
