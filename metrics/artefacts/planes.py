"""Jumps between neighbouring planes: seams at single places and on grids, slice offsets, uneven resolution.

A jump is the mean of the middle half of the signed differences of two neighbouring planes within a block, minus the
median of the two planes before and the two after. Anatomy changes smoothly or in a few blocks; a seam changes all blocks of a plane at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medlord_bench.volumes.body import Mask, Spacing, blocks_of, body_space, working

Image = NDArray[np.float32]

TISSUE_HU = -950  # HU: darker voxels are air or padding
BODY_MM = 6.0  # blocks that show where the body is
SIDE = 128  # samples of a plane along each of its sides, at most
BLOCK = 16  # samples along each side of a block
LEAST_TISSUE = 0.25  # of a block's samples
AROUND = np.array([1, 1, 0, 1, 1], bool)[:, None]  # planes of the trend
QUARTER = 25  # percentile over the blocks of a plane: a seam is in all of them, anatomy in some
LEAST_BLOCKS = 0.5  # of the blocks of the plane with the most: a table or an arm has fewer
LEAST_PLANES = 8
PERIODS = (8, 16, 32)  # planes between tiles
LEAST_JUMP = 0.05  # HU: a typical jump below it counts as this, so that ratios stay finite


@dataclass(frozen=True, eq=False)
class Axis:
    """Along one axis. jumps: (planes - 1,) HU, the lower quartile of the blocks' jumps by size, NaN without tissue.

    offsets: the typical signed jump. difference: typical absolute difference of neighbouring voxels, HU. uneven: of
    that difference, even planes against odd ones: 0 equal, 1 one of them has none.
    """

    jumps: NDArray[np.float64]
    offsets: NDArray[np.float64]
    difference: float
    uneven: float

    @property
    def known(self) -> bool:
        return int(np.isfinite(self.jumps).sum()) >= LEAST_PLANES

    @property
    def typical(self) -> float:
        return max(float(np.nanmedian(self.jumps)), LEAST_JUMP)

    def middle(self) -> float:
        """The largest jump within a plane of the middle, over the typical one."""
        place = len(self.jumps) // 2
        return _largest(self.jumps[max(place - 1, 0) : place + 2]) / self.typical if self.known else np.nan

    @property
    def single(self) -> NDArray[np.float64]:
        """By how much each jump exceeds those of both neighbours, HU: a seam is one plane, an edge of anatomy several."""
        padded = np.pad(np.nan_to_num(self.jumps), 1)
        return np.where(np.isnan(self.jumps), np.nan, np.maximum(self.jumps - np.maximum(padded[2:], padded[:-2]), 0))

    def largest(self) -> float:
        """The largest single jump over the typical jump."""
        return _largest(self.single) / self.typical if self.known else np.nan

    def every(self, period: int) -> float:
        """The mean single jump of planes that are `period` apart, at the worst start, over the typical jump."""
        if not self.known or len(self.jumps) + 1 < 2 * period:
            return np.nan
        parts = (self.single[start::period] for start in range(period))
        means = [np.nanmean(part) for part in parts if np.isfinite(part).any()]
        return float(max(means)) / self.typical

    def banding(self) -> float:
        """The spread of the typical signed jump of a plane, HU, as a standard deviation (1.48 times the median)."""
        return 1.4826 * float(np.nanmedian(np.abs(self.offsets))) if self.known else np.nan


def _largest(values: NDArray[np.float64]) -> float:
    return float(np.nanmax(values)) if np.isfinite(values).any() else np.nan


def body_of(hu: NDArray[np.int16], mm: Spacing) -> tuple[Mask, tuple[int, int, int]]:
    """The body in blocks of about 6 mm, and the voxels per block."""
    coarse, coarse_mm = working(hu, mm, BODY_MM)
    return body_space(coarse, coarse_mm), blocks_of(mm, BODY_MM)


def along(hu: NDArray[np.int16], body: Mask, factors: tuple[int, int, int], axis: int) -> Axis:
    """The jumps of a volume along one axis inside the body. Of large planes every second, third, ... voxel is used.

    body: in blocks of `factors` voxels.
    """
    planes = np.moveaxis(hu, axis, 0)
    _, rows, columns = planes.shape
    steps = (1, -(-rows // SIDE), -(-columns // SIDE))
    planes = planes[:, :: steps[1], :: steps[2]].astype(np.float32)
    order = [axis, *(other for other in range(3) if other != axis)]
    at = np.ix_(*(np.arange(n) * step // factors[o] for n, step, o in zip(planes.shape, steps, order, strict=True)))
    tissue = (planes > TISSUE_HU) & np.moveaxis(body, axis, 0)[at]
    differences = np.diff(planes, axis=0)
    differences[~(tissue[1:] & tissue[:-1])] = np.nan
    signed, count = _midmeans(differences)
    absolute, _ = _midmeans(np.abs(differences, out=differences))
    enough = count > 0
    number = enough.sum(axis=1, keepdims=True)
    enough &= number >= LEAST_BLOCKS * number.max(initial=1)
    filled = np.where(enough, signed, 0)
    low, high = (ndimage.rank_filter(filled, rank, footprint=AROUND, mode="nearest") for rank in (1, 2))
    jumps = np.where(enough, signed - (low + high) / 2, np.nan)
    levels = _over_blocks(np.where(enough, absolute, np.nan))
    return Axis(_over_blocks(np.abs(jumps), QUARTER), _over_blocks(jumps), _median(levels), _uneven(levels))


def _midmeans(values: Image) -> tuple[Image, NDArray[np.intp]]:
    """(planes, blocks): the mean of the middle half of each block's known values, NaN where too few, and their number.

    As robust as needed and, unlike the median, not limited to whole and half HU.
    """
    n, rows, columns = values.shape
    high, wide = min(BLOCK, rows), min(BLOCK, columns)
    cut = values[:, : rows // high * high, : columns // wide * wide]
    blocks = cut.reshape(n, rows // high, high, columns // wide, wide).transpose(0, 1, 3, 2, 4)
    ordered = np.sort(blocks.reshape(n, -1, high * wide), axis=2)  # NaN last
    count = np.isfinite(ordered).sum(axis=2)
    count[count < LEAST_TISSUE * high * wide] = 0
    sums = np.cumsum(np.nan_to_num(ordered, copy=False), axis=2, dtype=np.float64)
    below = count // 4
    above = np.maximum(count - below, 1)
    sums = np.concatenate([np.zeros_like(sums[:, :, :1]), sums], axis=2)
    low, high_sum = (np.take_along_axis(sums, place[:, :, None], axis=2)[:, :, 0] for place in (below, above))
    return np.where(count > 0, (high_sum - low) / np.maximum(above - below, 1), np.nan).astype(np.float32), count


def _over_blocks(values: NDArray[np.floating], percentile: float = 50) -> NDArray[np.float64]:
    """The percentile over the known blocks of each plane; NaN without any."""
    found = np.full(len(values), np.nan)
    known = np.isfinite(values).any(axis=1)
    if known.any():
        found[known] = np.nanpercentile(values[known], percentile, axis=1)
    return found


def _median(values: NDArray[np.float64]) -> float:
    return float(np.nanmedian(values)) if np.isfinite(values).any() else np.nan


def _uneven(levels: NDArray[np.float64]) -> float:
    even, odd = _median(levels[::2]), _median(levels[1::2])
    return abs(even - odd) / (even + odd) if even + odd > 0 else np.nan
