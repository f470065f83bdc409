"""A volume in blocks of 3 x 3 x 3 voxels: the mean and the noise of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 3  # voxels: small enough for one tissue, large enough for a standard deviation
PLANES = 8  # planes of blocks at a time: bounded memory
FREE = SIDE**3 - 4  # voxels of a block less the parameters of its mean and slopes
Image = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Blocks:
    """mean: HU of each block, float32 (X // 3, Y // 3, Z // 3). noise: standard deviation about its mean and slopes."""

    mean: Image
    noise: Image

    @classmethod
    def of(cls, hu: NDArray[np.int16]) -> Blocks:
        """Blocks of a volume; incomplete ones at its ends are left out. Empty where an axis has fewer than 3 voxels."""
        shape = [n // SIDE for n in hu.shape]
        mean, noise = np.empty(shape, np.float32), np.empty(shape, np.float32)
        for start in range(0, shape[2], PLANES):
            here = slice(start, start + PLANES)
            mean[:, :, here], noise[:, :, here] = _moments(in_blocks(hu, here).astype(np.float32))
        return cls(mean, noise)


def in_blocks(values: NDArray[Any], planes: slice) -> NDArray[Any]:
    """A view (X // 3, 3, Y // 3, 3, Z, 3) of whole blocks in the given planes of blocks."""
    x, y, z = (n // SIDE for n in values.shape)
    whole = values[: x * SIDE, : y * SIDE, : z * SIDE][:, :, planes.start * SIDE : planes.stop * SIDE]
    return whole.reshape(x, SIDE, y, SIDE, whole.shape[2] // SIDE, SIDE)


def _moments(part: Image) -> tuple[Image, Image]:
    within = (1, 3, 5)
    mean = part.mean(within, keepdims=True)
    part -= mean
    squares = np.square(part).sum(within)
    for axis in within:
        ends = part.take(SIDE - 1, axis=axis) - part.take(0, axis=axis)
        slope = ends.mean(tuple(a if a < axis else a - 1 for a in within if a != axis)) / (SIDE - 1)
        squares -= slope**2 * (2 * SIDE**2)  # sum over the block of (slope * position)**2
    return mean.reshape(squares.shape), np.sqrt(squares.clip(0) / FREE)
