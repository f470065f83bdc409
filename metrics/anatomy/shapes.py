"""Shape and place of labelled regions, relative to the body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medlord_bench.contracts import LabelMap
from medlord_bench.contracts.regions import values_of
from medlord_bench.volumes.body import Mask, Spacing, largest_tissue

FACES_PER_SURFACE = 1.5  # area of the voxel faces of a surface over its area, mean over all directions (Cauchy)
AXES = ("x", "y", "z")
EXTENT, PLACE, ALL = slice(0, 3), slice(3, 6), 8  # of `Shape.values`


@dataclass(frozen=True, eq=False)
class Body:
    """The box of the body: its low corner and its size in mm."""

    low: NDArray[np.float64]
    size: NDArray[np.float64]

    @property
    def width(self) -> float:
        return float(self.size[0])

    @classmethod
    def of(cls, coarse: NDArray[np.float32], mm: Spacing) -> Body:
        """The box of the largest piece of tissue; in a patch without air around it, that of the whole volume."""
        tissue = largest_tissue(coarse, mm)
        if not tissue.any():
            return cls(np.zeros(3), np.array(coarse.shape) * mm)
        (box,) = ndimage.find_objects(tissue.astype(np.uint8))
        low, high = (np.array([getattr(s, end) for s in box]) * mm for end in ("start", "stop"))
        return cls(low, high - low)


def shape_values(mask: Mask, mm: Spacing, body: Body) -> list[float]:
    """Extent and centroid along x, y, z over the body's box, sphericity, and volume over that of the box; NaN without
    a voxel.

    Sphericity is the surface of a ball of equal volume over the region's (Wadell 1935); the surface is estimated from
    the areas of the voxels' faces.
    """
    if not mask.any():
        return [np.nan] * ALL
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    part = np.pad(mask[box], 1)
    extent = np.array([s.stop - s.start for s in box]) * mm / body.size
    centroid = (np.array(ndimage.center_of_mass(mask)) + 0.5) * mm
    voxel = float(np.prod(mm))
    volume = np.count_nonzero(part) * voxel
    faces = sum(np.count_nonzero(np.diff(part, axis=axis)) * voxel / mm[axis] for axis in range(3))
    ball = np.pi ** (1 / 3) * (6 * volume) ** (2 / 3)
    place = (centroid - body.low) / body.size
    return [*extent, *place, ball / (faces / FACES_PER_SURFACE), volume / float(np.prod(body.size))]


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions of a label map on coarse voxels of `mm`."""

    labels: LabelMap
    mm: Spacing

    @classmethod
    def of(cls, labels: LabelMap, factors: Sequence[int], mm: Spacing, box: tuple[slice, ...]) -> Regions:
        """Of each block of `factors` voxels, its middle one. mm: size of the blocks."""
        part = labels.labels[box][tuple(slice(f // 2, None, f) for f in factors)]
        return cls(LabelMap(np.ascontiguousarray(part), labels.affine, labels.names), mm)

    def mask(self, region: str) -> Mask:
        """All false if the map does not define the region."""
        return np.isin(self.labels.labels, values_of(region, self.labels.names))

    @cached_property
    def _away(self) -> dict[str, NDArray[np.float64]]:
        return {}

    def distance(self, region: str, other: str) -> float:
        """The mean distance in mm of the voxels of a region from the nearest voxel of another; NaN if one is missing."""
        mask = self.mask(region)
        if other not in self._away:
            near = self.mask(other)
            self._away[other] = ndimage.distance_transform_edt(~near, sampling=self.mm) if near.any() else np.array([])
        away = self._away[other]
        return float(away[mask].mean()) if away.size and mask.any() else np.nan
