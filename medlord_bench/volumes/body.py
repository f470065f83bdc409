"""The body and the lungs by HU alone, without weights, also in patches: for measurements, not for anatomy's names."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medlord_bench.volumes.blocks import block_means

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]

DARKEST, DENSEST = -960.0, -550.0  # mean HU of lung with its small vessels; room air and gas are darker
WORKING_MM = 2.5  # voxels are averaged in blocks up to about this size
SMOOTHING_MM = 3.0
RIM_MM = 4.0  # half the thickness of the rim between air and tissue, whose mean HU is that of lung
CLOSING_MM = 8.0  # largest radius of a vessel or nodule that counts as lung
LEAST_SHARE = 0.01  # of the grid: less is bowel, or a rim
TISSUE_HU = -400.0  # the soft parts of the body lie above
TABLE_MM = 5.0  # half the thickness of what is cut from the body: table, clothes
FIELD_OF_VIEW_MM = 350.0  # of a thorax, for grids without spacing


def nominal(shape: tuple[int, int, int], spacing: Spacing | None) -> Spacing:
    """The voxel size in mm; without one, that of equal sides at which the longer side in the plane is 350 mm."""
    if spacing is not None:
        return spacing
    side = FIELD_OF_VIEW_MM / max(shape[:2])
    return side, side, side


def blocks_of(mm: Spacing, size: float) -> tuple[int, int, int]:
    """Voxels per block along each axis, for blocks of about `size` mm."""
    x, y, z = (max(1, round(size / h)) for h in mm)
    return x, y, z


def working(hu: NDArray[Any], mm: Spacing, size: float = WORKING_MM) -> tuple[NDArray[np.float32], Spacing]:
    """The volume in blocks of about `size` mm, and the blocks' size in mm."""
    factors = blocks_of(mm, size)
    return block_means(hu, factors), (factors[0] * mm[0], factors[1] * mm[1], factors[2] * mm[2])


def lung_space(coarse: NDArray[np.float32], mm: Spacing) -> Mask:
    """Both lungs with their vessels, without main airways; all false if they are less than 1 % of the volume.

    coarse: HU on blocks of about `WORKING_MM`. mm: their size. Lung is where the mean HU over some mm is that of lung,
    opened (without rims between air and tissue), of pieces most of whose own voxels have the HU of lung (a rim or a thin
    table has not), closed (with vessels), and without holes (nodules).
    """
    smooth = ndimage.gaussian_filter(coarse, [max(SMOOTHING_MM / h, 0.5) for h in mm], mode="nearest")
    space = opened((smooth > DARKEST) & (smooth < DENSEST), mm, RIM_MM)
    found, count = ndimage.label(space)
    alike = ndimage.mean((coarse > DARKEST) & (coarse < DENSEST), found, range(1, count + 1))
    space = np.concatenate([[False], np.asarray(alike) > 0.5])[found]
    if space.mean() < LEAST_SHARE:
        return np.zeros(coarse.shape, bool)
    return ndimage.binary_fill_holes(closed(space, mm, CLOSING_MM)) & (smooth > DARKEST)


def largest_tissue(coarse: NDArray[np.float32], mm: Spacing) -> Mask:
    """The largest connected piece of tissue, without what is thin, such as a table; all false without any."""
    found, count = ndimage.label(opened(coarse > TISSUE_HU, mm, TABLE_MM))
    if not count:
        return np.zeros(coarse.shape, bool)
    return np.asarray(found == int(np.argmax(np.bincount(found.ravel())[1:])) + 1)


def body_space(coarse: NDArray[np.float32], mm: Spacing) -> Mask:
    """The body with its lungs: the largest piece of tissue, its holes in each axial plane, and `lung_space`."""
    tissue = largest_tissue(coarse, mm)
    filled = [ndimage.binary_fill_holes(tissue[:, :, z]) for z in range(tissue.shape[2])]
    return np.stack(filled, axis=2) | lung_space(coarse, mm)


def within(mask: Mask, mm: Spacing, radius: float) -> Mask:
    """The mask dilated by `radius` mm, and at least one voxel."""
    if not mask.any():
        return mask
    return np.asarray(ndimage.distance_transform_edt(~mask, sampling=mm) <= max(radius, min(mm)))


def shrunk(mask: Mask, mm: Spacing, radius: float) -> Mask:
    """The mask eroded by `radius` mm, and at least one voxel; the image's border erodes nothing."""
    return ~within(~mask, mm, radius)


def opened(mask: Mask, mm: Spacing, radius: float) -> Mask:
    """The mask where a ball of `radius` mm fits in."""
    return within(shrunk(mask, mm, radius), mm, radius) & mask


def closed(mask: Mask, mm: Spacing, radius: float) -> Mask:
    """The mask with gaps filled into which no ball of `radius` mm fits."""
    return shrunk(within(mask, mm, radius), mm, radius) | mask
