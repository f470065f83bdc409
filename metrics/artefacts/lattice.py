"""Patterns that repeat every 2, 4 or 8 voxels in three dimensions, as strided decoders leave them.

The fine detail of the volume is folded: averaged over all voxels with the same index modulo 8. Anatomy and noise
average out, a pattern at fixed places stays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .planes import TISSUE_HU

PERIOD = 8
PERIODS = (2, 4, 8)
LARGEST_DETAIL = 100.0  # HU: edges count as this, so that none dominates
SLAB = 16  # planes at a time
LEAST_OF_CELL = 16  # voxels of tissue behind each mean of the folded cell


def patterns(hu: NDArray[np.int16]) -> dict[int, float]:
    """Period -> standard deviation in HU of the pattern that repeats with it and with no shorter one of `PERIODS`.

    NaN where the grid is shorter than the period, or has too little tissue.
    """
    cell = folded(hu)
    if cell is None:
        return dict.fromkeys(PERIODS, np.nan)
    found, shorter = {}, np.zeros((1, 1, 1))
    for period in PERIODS:
        repeats = PERIOD // period
        own = cell.reshape(repeats, period, repeats, period, repeats, period).mean(axis=(0, 2, 4))
        found[period] = float(np.std(own - np.tile(shorter, [period // n for n in shorter.shape])))
        shorter = own
    return found


def folded(hu: NDArray[np.int16]) -> NDArray[np.float64] | None:
    """The mean fine detail at each index modulo 8, HU (8, 8, 8); None if a mean has fewer than 16 voxels of tissue."""
    x, y, z = (n // PERIOD * PERIOD for n in hu.shape)
    sums, counts = np.zeros((2, PERIOD, PERIOD, PERIOD))
    for start in range(0, x, SLAB):
        stop, before = min(start + SLAB, x), min(start, 1)
        slab = hu[start - before : stop + 1].astype(np.float32)
        detail = (slab - ndimage.uniform_filter(slab, 3, mode="nearest"))[before : before + stop - start, :y, :z]
        tissue = slab[before : before + stop - start, :y, :z] > TISSUE_HU
        detail = np.where(tissue, np.clip(detail, -LARGEST_DETAIL, LARGEST_DETAIL), 0)
        sums += _fold(detail)
        counts += _fold(tissue)
    return sums / counts if x * y * z and counts.min() >= LEAST_OF_CELL else None


def _fold(values: NDArray) -> NDArray[np.float64]:
    x, y, z = (n // PERIOD for n in values.shape)
    cells = values.reshape(x, PERIOD, y, PERIOD, z, PERIOD)
    return np.asarray(cells.sum(axis=(0, 2, 4), dtype=np.float64))
