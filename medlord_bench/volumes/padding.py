"""Which part of a volume is image, and which is padding around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, slice, slice]

PADDING_RANGE_HU = 30  # HU: the values of a plane of padding differ by less; the noise of room air is larger
TISSUE_HU = -500.0  # HU: air and lung below
MIN_TISSUE_OF_PLANE = 0.002  # of a plane's voxels, of the image and not of padding: less is noise


def image_box(hu: NDArray[np.int16]) -> Box | None:
    """The box without padding: without flat planes at its sides, and, along Z, without planes of air alone. None for a
    volume that is nothing else.

    Room air at the sides is kept, unless it is flat: it shows that foam and skin folds are outside the body.
    """
    slices = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        image = np.ptp(hu, axis=others) > PADDING_RANGE_HU
        if axis == 2:
            image &= (hu > TISSUE_HU).mean(axis=others) > MIN_TISSUE_OF_PLANE
        planes = np.flatnonzero(image)
        if not len(planes):
            return None
        slices.append(slice(int(planes[0]), int(planes[-1]) + 1))
    return slices[0], slices[1], slices[2]
