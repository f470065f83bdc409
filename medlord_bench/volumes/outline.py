"""A volume in 512 numbers, to find copies: the mean HU of 8 x 8 x 8 blocks.

Block means hardly change with noise, an offset, another kernel or slice thickness, and differ between patients. The
distance of two outlines is their root mean square difference, in units of the smaller standard deviation of the two.
Measured: a copy with noise of 60 HU, 10 HU more, or every other slice left out is at 0.01 to 0.04 from its original; the
nearest of 2,278 pairs of phantom patients are at 0.13, three real scans of different patients at 1.2 to 1.7.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLOCKS = 8
NEAR = 0.06  # above what copies show, and half of the nearest pair of patients
FLAT_HU = 20.0  # an outline of a smaller standard deviation says nothing: a patch of one tissue


def outline(hu: NDArray[np.int16]) -> list[int]:
    """The means of blocks in HU, rounded, of an array (X, Y, Z); sides below 8 have as many blocks as voxels."""
    import numpy as np

    means: NDArray[Any] = hu
    for axis in range(3):
        size = means.shape[axis]
        starts = np.linspace(0, size, min(BLOCKS, size), endpoint=False).astype(int)
        sums = np.add.reduceat(means, starts, axis=axis, dtype=np.float64 if axis else np.int64)
        widths = np.diff([*starts, size])
        means = sums / widths.reshape([-1 if other == axis else 1 for other in range(3)])
    return [round(value) for value in means.ravel().tolist()]


def near(outlines: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, str, float]]:
    """Every pair of names whose outlines are nearly equal, with their distance. 5,000 volumes take seconds."""
    import numpy as np

    names = [name for name, values in outlines.items() if values]
    if len({len(outlines[name]) for name in names}) > 1 or len(names) < 2:
        return
    values = np.array([outlines[name] for name in names], dtype=np.float64)
    spread = values.std(axis=1)
    squares = (values**2).sum(axis=1)
    for index in range(len(names) - 1):
        rest = slice(index + 1, None)
        gaps = squares[index] + squares[rest] - 2 * (values[rest] @ values[index])
        least = np.minimum(spread[index], spread[rest])
        distance = np.sqrt(np.maximum(gaps, 0) / values.shape[1]) / np.maximum(least, 1e-9)
        for offset in np.flatnonzero((distance < NEAR) & (least > FLAT_HU)):
            yield names[index], names[index + 1 + int(offset)], float(distance[offset])
