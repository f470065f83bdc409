"""The voxel size of a volume on MAISI's grid, which the U-Net receives as a condition."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from medlord_bench.contracts import Cohort, Shape

Spacing = tuple[float, float, float]


@runtime_checkable
class Spaced(Protocol):
    """A cohort that knows the voxel size of each case. The bench's cohorts do."""

    def spacing(self, case_id: str) -> Spacing: ...


def spacing_on(spacing: Spacing | None, source: Shape, shape: Shape) -> Spacing:
    """The voxel size in mm of an image of `source` voxels on the grid `shape`. An unknown spacing counts as 1 mm."""
    x, y, z = (mm * old / new for mm, old, new in zip(spacing or (1.0, 1.0, 1.0), source, shape, strict=True))
    return x, y, z


def case_spacing(data: Cohort, case_id: str, shape: Shape) -> Spacing:
    """The voxel size of a case on MAISI's grid: from the case if the cohort knows it, else from the protocol."""
    grid = data.protocol.grid
    return spacing_on(data.spacing(case_id) if isinstance(data, Spaced) else grid.spacing, grid.shape, shape)
