"""Random patches inside the body: their positions, and their extraction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import LabelMap, Shape, Volume
from medlord_bench.util.seeds import numpy_rng

TISSUE_THRESHOLD_HU = -500  # HU; above it is tissue rather than air or lung
COARSE_MM = 6.0  # the body is found on a grid of about this spacing
MAX_TRIES = 50


def body(volume: Volume) -> tuple[NDArray[np.bool_], tuple[int, int, int]]:
    """The body on a coarse grid, and the number of voxels per coarse voxel.

    Body: the largest connected part above -500 HU, with its holes filled in each axial slice (the lungs). In a crop
    without a border of air, lung that touches the edge is excluded.
    """
    from scipy.ndimage import binary_fill_holes, label

    step = tuple(max(1, round(COARSE_MM / length)) for length in volume.spacing)
    tissue = volume.hu[:: step[0], :: step[1], :: step[2]] > TISSUE_THRESHOLD_HU
    parts, count = label(tissue)
    if count:
        tissue = parts == 1 + int(np.bincount(parts.ravel())[1:].argmax())
    filled = np.stack([binary_fill_holes(tissue[:, :, z]) for z in range(tissue.shape[2])], axis=2)
    return filled, (step[0], step[1], step[2])


def place(volume: Volume, shape: Shape, min_body: float, seed: tuple[int, str, int]) -> Shape:
    """The first voxel of a patch, from (seed, case id, patch number) alone.

    The centre is drawn uniformly from the body's voxels and the patch shifted into the image. Of up to 50 draws the
    first with a body fraction of at least `min_body` is used, else the one with the largest. An image smaller than the
    patch along an axis is centred there, to be padded.
    """
    inside, step = body(volume)
    rng = numpy_rng("patch", *seed)
    places = np.argwhere(inside) if inside.any() else np.argwhere(np.ones_like(inside))
    best: tuple[float, Shape] = (-1.0, (0, 0, 0))
    for _ in range(MAX_TRIES):
        centre = places[rng.integers(len(places))] * step + rng.integers(0, step)
        x, y, z = (_start(int(c), m, n) for c, m, n in zip(centre, shape, volume.shape, strict=True))
        box = tuple(
            slice(max(s, 0) // k, max(-(-(s + m) // k), 1)) for s, m, k in zip((x, y, z), shape, step, strict=True)
        )
        covered = float(
            np.prod([min(s + m, n) - max(s, 0) for s, m, n in zip((x, y, z), shape, volume.shape, strict=True)])
        )
        share = float(inside[box].mean()) * covered / float(np.prod(shape))
        if share > best[0]:
            best = share, (x, y, z)
        if share >= min_body:
            break
    return best[1]


def _start(centre: int, length: int, available: int) -> int:
    if available <= length:
        return -((length - available) // 2)
    return min(max(centre - length // 2, 0), available - length)


def cut(
    volume: Volume, labels: LabelMap | None, start: Shape, shape: Shape, outside: int
) -> tuple[Volume, LabelMap | None]:
    """The patch of `shape` that begins at `start`; `outside` HU and background beyond the image."""
    from medlord_bench.volumes.grid import window

    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array(start, dtype=np.float64)
    patch = Volume(window(volume.hu, start, shape, outside), affine)
    if labels is None:
        return patch, None
    return patch, LabelMap(window(labels.labels, start, shape, 0), affine, labels.names)
