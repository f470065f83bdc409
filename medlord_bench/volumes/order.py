"""Arrays in C order."""

from __future__ import annotations

from itertools import product
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.generic)

# Voxels of the blocks of a copy. A file has x fastest, a volume z: a copy line by line uses 2 bytes of each 64 that it
# fetches. A block of this size stays in the cache until all of its bytes are used.
BLOCK = (64, 32, 16)


def in_c_order(values: NDArray[Number]) -> NDArray[Number]:
    """The same values (X, Y, Z) in C order: the array itself where it has that order, else a copy, made block by block."""
    if values.flags.c_contiguous:
        return values
    copy = np.empty(values.shape, values.dtype)
    starts = (range(0, size, step) for size, step in zip(values.shape, BLOCK, strict=True))
    for corner in product(*starts):
        block = tuple(slice(at, at + step) for at, step in zip(corner, BLOCK, strict=True))
        copy[block] = values[block]
    return copy
