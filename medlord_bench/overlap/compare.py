"""DSC, NSD and HD95 of two label maps, region by region.

The surface of a region is its voxels with a face neighbour outside it (beyond the grid is outside), as in MONAI's
`get_mask_edges`; distances are between the centres of such voxels, in mm, by SciPy's Euclidean distance transform. Time
and memory (12 bytes per voxel) depend on the box around the region in both maps, not on the grid.

Why not MONAI's: NSD and HD95 share their distances here. Seven regions of a 256x256x248 map took 1.9 s of one core
against 5.6 s, with equal results, and MONAI needed 390 MiB more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medlord_bench.contracts import LabelMap, State
from medlord_bench.contracts.regions import members

PERCENTILE = 95.0
Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]
Spacing = tuple[float, float, float]
UNKNOWN = -1  # instead of a number of voxels: the label map has no label for that region


def compare(
    made: LabelMap, mask: LabelMap | None, regions: Sequence[str], spacing: Spacing | None, tolerance: float
) -> State:
    """For each of R regions: `dsc`, `nsd`, `hd95` (mm), float64 (R,), and `made_voxels`, `mask_voxels`, int64 (R,).

    spacing: mm, None if it is unknown. tolerance: of NSD, in mm. Voxels are -1 if a map does not define the
    region (everywhere, if there is no mask). Scores are NaN if either map lacks it, NSD and HD95 also without
    a spacing: `summary` defines the meaning of an absent region.
    """
    scores = np.full((3, len(regions)), np.nan)
    voxels = np.full((2, len(regions)), UNKNOWN, dtype=np.int64)
    maps = [_Labels(made), *([] if mask is None else [_Labels(mask)])]
    for place, region in enumerate(regions):
        known = [labels.knows(region) for labels in maps]
        box = _union([labels.box(region) for labels in maps])
        found = [labels.inside(region, box) for labels in maps]
        counts = [int(np.count_nonzero(part)) for part in found]
        voxels[: len(maps), place] = [count if here else UNKNOWN for count, here in zip(counts, known, strict=True)]
        if len(maps) == 2 and min(counts) > 0:
            scores[0, place] = 2 * int(np.count_nonzero(found[0] & found[1])) / sum(counts)
            if spacing is not None:
                scores[1:, place] = surface_scores(found[0], found[1], spacing, tolerance)
    return {
        "dsc": scores[0],
        "nsd": scores[1],
        "hd95": scores[2],
        "made_voxels": voxels[0],
        "mask_voxels": voxels[1],
    }


def voxels_of(labels: LabelMap, region: str) -> int:
    """Voxels of a region; -1 if the label map does not define it."""
    found = _Labels(labels)
    return int(np.count_nonzero(found.inside(region, found.box(region)))) if found.knows(region) else UNKNOWN


class _Labels:
    """A label map and the box around each of its labels, found in one pass."""

    def __init__(self, labels: LabelMap) -> None:
        self.labels = labels.labels
        self.names = labels.names
        self.boxes = ndimage.find_objects(self.labels)

    def _of(self, region: str) -> list[int]:
        return [value for value, name in self.names.items() if value > 0 and name in members(region)]

    def knows(self, region: str) -> bool:
        return bool(self._of(region))

    def box(self, region: str) -> Box | None:
        """The smallest box around a region; None if it has no voxel."""
        boxes = [self.boxes[value - 1] for value in self._of(region) if value <= len(self.boxes)]
        return _union(boxes)

    def inside(self, region: str, box: Box | None) -> Mask:
        """The region's mask within a box, bool; empty if there is no box."""
        if box is None:
            return np.zeros((0, 0, 0), dtype=bool)
        table = np.zeros(256, dtype=bool)
        table[self._of(region)] = True
        mask: Mask = table[self.labels[box]]
        return mask


def _union(boxes: Sequence[tuple[slice, ...] | None]) -> Box | None:
    held = [box for box in boxes if box is not None]
    if not held:
        return None
    x, y, z = (slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*held, strict=True))
    return x, y, z


def surface(mask: Mask) -> Mask:
    """The voxels of a mask that have a face neighbour outside it; beyond the array is outside."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        along, source = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        along[1:] &= source[:-1]
        along[:-1] &= source[1:]
        along[0] = along[-1] = False
    return mask & ~inner


def surface_scores(made: Mask, mask: Mask, spacing: Spacing, tolerance: float) -> tuple[float, float]:
    """(NSD, HD95 in mm) of two masks (X, Y, Z), neither of them empty.

    NSD (Nikolov et al. 2021, at voxel resolution): share of all surface voxels of both within `tolerance` mm of the
    other surface. HD95 (Huttenlocher et al. 1993, with the 95th percentile): the larger of both directions.
    """
    first, second = surface(made), surface(mask)
    there, back = _distances(first, second, spacing), _distances(second, first, spacing)
    within = np.count_nonzero(there <= tolerance) + np.count_nonzero(back <= tolerance)
    farthest = max(np.percentile(there, PERCENTILE), np.percentile(back, PERCENTILE))
    return within / (len(there) + len(back)), float(farthest)


def _distances(source: Mask, target: Mask, spacing: Spacing) -> NDArray[np.float64]:
    """From each voxel of one surface to the nearest of the other, in mm."""
    nearest = ndimage.distance_transform_edt(~target, sampling=spacing, return_distances=False, return_indices=True)
    found = []
    for x in range(source.shape[0]):  # plane by plane: speckle has very many surface voxels
        y, z = np.nonzero(source[x])
        apart = [(nearest[axis, x, y, z] - at) * spacing[axis] for axis, at in enumerate((x, y, z))]
        found.append(np.sqrt(apart[0] ** 2 + apart[1] ** 2 + apart[2] ** 2))
    return np.concatenate(found)
