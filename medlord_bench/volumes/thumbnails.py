"""The thumbnail of a volume: its voxels averaged in boxes. Metrics store it in place of the volume."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import Shape

MIN_CELLS = 16  # cells along an axis, so that a flat volume keeps its shape; fewer only if there are fewer voxels


def thumbnail_shape(shape: Shape, cells: int) -> Shape:
    """Cells along each axis: `cells` along the longest, in proportion along the others; even, since they are halved
    once."""
    longest = max(shape)
    x, y, z = (2 * max(2, min(max(round(cells * n / longest), MIN_CELLS), n) // 2) for n in shape)
    return x, y, z


def thumbnail(hu: NDArray[np.int16], window: tuple[int, int], cells: int) -> NDArray[np.float32]:
    """Mean HU, clipped to `window`, of the boxes that divide the volume evenly: float32 of `thumbnail_shape`.

    A voxel across two boxes contributes to both in proportion. Read plane by plane along X, so that a
    memory-mapped volume of any size takes little memory.
    """
    shape = thumbnail_shape((hu.shape[0], hu.shape[1], hu.shape[2]), cells)
    along_x, along_y, along_z = (_shares(n, m) for n, m in zip(hu.shape, shape, strict=True))
    boxes = np.zeros(shape, np.float32)
    for x in range(hu.shape[0]):
        plane = np.clip(hu[x], *window).astype(np.float32)
        small = along_y @ plane @ along_z.T
        for cell in np.flatnonzero(along_x[:, x]):
            boxes[cell] += along_x[cell, x] * small
    return boxes


def _shares(voxels: int, cells: int) -> NDArray[np.float32]:
    """(cells, voxels): the weight of each voxel in each cell's mean."""
    edges = np.linspace(0, voxels, cells + 1)
    first, last = np.arange(voxels), np.arange(1, voxels + 1)
    overlap = np.minimum(edges[1:, None], last) - np.maximum(edges[:-1, None], first)
    return np.asarray(np.maximum(overlap, 0) * cells / voxels, dtype=np.float32)
