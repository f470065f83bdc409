"""A volume on coarser voxels: means over blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def block_means(hu: NDArray[Any], factors: tuple[int, int, int]) -> NDArray[np.float32]:
    """Means over blocks of voxels, float32; an incomplete last block is averaged over its own voxels."""
    means: NDArray[Any] = hu.clip(-1024, 600)  # metal would dominate a whole block
    for axis, factor in enumerate(factors):
        if factor > 1:
            starts = np.arange(0, means.shape[axis], factor)
            lengths = np.diff(np.append(starts, means.shape[axis])).astype(np.float32)
            sums = np.add.reduceat(means, starts, axis=axis, dtype=np.float32)
            means = sums / lengths.reshape([-1 if a == axis else 1 for a in range(3)])
    return means.astype(np.float32, copy=False)
