"""What HU alone show of the anatomy, without a segmenter: lungs, mediastinum, vessels of the lungs, bone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medlord_bench.volumes.body import Mask, Spacing, shrunk, within

Image = NDArray[np.float32]

PLEURA_MM = 4.0  # from the border of the lungs, where no vessel is counted
BRIGHT_HU = 250.0  # HU above the lung's median: vessels
THIN_HU = 120.0  # HU above the opened image: vessels thinner than the box
THIN_MM = (6.0, 12.0)  # side of the box
LEAST_ML, MM3_PER_ML = 20.0, 1000.0  # of lung, for its vessels
CENTRAL_ROWS = 0.6  # of the widest row of a slice: rows that reach both lungs
LEAST_SLICES = 10
BONE_HU = 200.0
SOFT_HU = -200.0  # tissue above: its voxels are the body, without lung and air
POOL_HU, POOL_SD = 130.0, 45.0  # HU: contrast-filled blood is brighter and even
POOL_MM = 3.0  # width of the smoothing that finds it
POOL_REACH_MM = 8.0  # from its even core to its border
LEAST_BONE_VOXELS = 20


def mediastinum(lungs: Mask) -> tuple[float, float]:
    """Width of the mediastinum between the lungs over the width of the thorax: median and 90th percentile over the slices.

    Of each row (left to right) that reaches at least 60 % of the slice's greatest width: the voxels from the first to
    the last of lung that are no lung, over their number. Of a slice, the median over these rows: a cardiothoracic ratio
    that needs no outline of the heart. NaN for fewer than 10 slices with lung. lungs: (X, Y, Z).
    """
    columns = lungs.any(axis=0)
    first, last = lungs.argmax(axis=0), lungs.shape[0] - 1 - lungs[::-1].argmax(axis=0)
    wide = np.where(columns, last - first + 1, 0)
    between = wide - lungs.sum(axis=0)
    slices = wide.max(axis=0) > 0
    if slices.sum() < LEAST_SLICES:
        return np.nan, np.nan
    central = wide >= CENTRAL_ROWS * wide.max(axis=0, keepdims=True)
    shares = np.where(central & columns, between / np.maximum(wide, 1), np.nan)
    ratios = np.nanmedian(shares[:, slices], axis=0)
    return float(np.median(ratios)), float(np.percentile(ratios, 90))


def vessels(fine: Image, lungs: Mask, mm: Spacing) -> tuple[float, ...]:
    """Shares of the lungs' inner voxels: bright ones, and those of structures thinner than 6 and 12 mm; NaN without
    enough lung.

    Thin: by how much a voxel is brighter than the image's opening by a box (white top-hat).
    """
    inner = shrunk(lungs, mm, PLEURA_MM)
    if np.count_nonzero(inner) * np.prod(mm) / MM3_PER_ML < LEAST_ML:
        return (np.nan,) * (1 + len(THIN_MM))
    (box,) = ndimage.find_objects(lungs.astype(np.uint8))
    part, inner = fine[box], inner[box]
    own = part[inner]
    shares = [float((own > np.median(own) + BRIGHT_HU).mean())]
    smooth = ndimage.gaussian_filter(part, [min(0.5, 0.75 / h) for h in mm], mode="nearest")
    for side in THIN_MM:
        sides = tuple(max(3, round(side / h / 2) * 2 + 1) for h in mm)
        opening = ndimage.grey_opening(smooth, sides, mode="nearest")
        shares.append(float((smooth[inner] - opening[inner] > THIN_HU).mean()))
    return tuple(shares)


def bone(coarse: Image, mm: Spacing) -> tuple[float, float]:
    """Voxels of bone over those of tissue, and their median HU; a volume without bone has share 0 and no HU.

    Bone: above 200 HU, and not contrast-filled blood, which is bright and even over some mm.
    """
    tissue = int((coarse > SOFT_HU).sum())
    mask = bones(coarse, mm)
    found = int(mask.sum())
    level = float(np.median(coarse[mask])) if found >= LEAST_BONE_VOXELS else np.nan
    return found / tissue if tissue else np.nan, level


def bones(coarse: Image, mm: Spacing) -> Mask:
    """The voxels of bone."""
    bright = coarse > BONE_HU
    if not bright.any():
        return bright
    sides = [2 * max(1, round(POOL_MM / h)) + 1 for h in mm]
    mean = ndimage.uniform_filter(coarse, sides, mode="nearest")
    square = ndimage.uniform_filter(coarse**2, sides, mode="nearest")
    even = (np.sqrt(np.maximum(square - mean**2, 0)) < POOL_SD) & (mean > POOL_HU)
    return bright & ~(within(even, mm, POOL_REACH_MM) & (coarse > POOL_HU))
