"""The voxel size that goes with a volume on MAISI's grid: its U-Net is told."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from medlord_bench.contracts import Cohort, Shape

Spacing = tuple[float, float, float]


@runtime_checkable
class Spaced(Protocol):
    """A cohort that knows each case's voxel size, as the bench's own does."""

    def spacing(self, case_id: str) -> Spacing: ...


def spacing_on(spacing: Spacing | None, source: Shape, shape: Shape) -> Spacing:
    """The voxel size in mm on the grid `shape` of an image of `source` voxels; 1 mm stands for an unknown one."""
    x, y, z = (mm * old / new for mm, old, new in zip(spacing or (1.0, 1.0, 1.0), source, shape, strict=True))
    return x, y, z


def case_spacing(data: Cohort, case_id: str, shape: Shape) -> Spacing:
    """A case's voxel size on MAISI's grid: its own where the cohort knows it, else the protocol's."""
    grid = data.protocol.grid
    return spacing_on(data.spacing(case_id) if isinstance(data, Spaced) else grid.spacing, grid.shape, shape)
