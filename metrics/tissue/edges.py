"""How sharp the borders of the lungs and of the body are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .classes import AIR, RANGES

LINES = 64  # planes of lines that are read for each direction, evenly spaced
BORDER_HU = -500  # HU: between air or lung and tissue
TISSUE_HU = (-200, 300)  # HU on the bright side
LUNG_HU = -600  # HU: darkest side of a border of the lung
REACH = 3  # voxels from the border to both levels: farther there is another structure
LEAST = 50  # borders for a value
MOST = 500_000  # borders that are read for each direction, evenly spaced: noise has millions
SHARP = 0.75  # quantile of sharpness: of the borders that a line crosses at about a right angle
BORDERS = ("lung border", "body border")


def widths(hu: NDArray[np.int16]) -> dict[str, tuple[float, float]]:
    """Border -> width in voxels in the axial plane and along Z; NaN where fewer than 50 lines cross it.

    The width of one crossing is the step in HU, between the means of two voxels 3 and 4 voxels from it on each side,
    over the largest difference of neighbours: 1 for a step between two voxels, 2.5 sigma for a border
    blurred by a wide Gaussian. Of all crossings it is the lower quartile.
    """
    some = hu[:, :, :: -(-hu.shape[2] // LINES)]
    (x, of_x), (y, of_y) = (_crossings(some, axis) for axis in (0, 1))
    flat, of_flat = np.concatenate([x, y]), np.concatenate([of_x, of_y])
    along, of_along = _crossings(hu[:, :: -(-hu.shape[1] // LINES)], 2)
    return {border: (_width(flat[of_flat == at]), _width(along[of_along == at])) for at, border in enumerate(BORDERS)}


def _crossings(hu: NDArray[np.int16], axis: int) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Sharpness (1 / width) of each border that a line along the axis crosses, and whose border it is, as its place."""
    lines = np.moveaxis(hu, axis, -1)
    size = lines.shape[-1]
    if size < 2 * REACH + 2:
        return np.empty(0, np.float32), np.empty(0, np.intp)
    dark = lines < BORDER_HU
    found = np.nonzero(dark[..., REACH : size - REACH - 1] != dark[..., REACH + 1 : size - REACH])
    where = [index[:: len(index) // MOST + 1] for index in found]
    steps = np.arange(-REACH, REACH + 2)
    place = where[2][:, None] + REACH + steps
    profile = lines[where[0][:, None], where[1][:, None], place].astype(np.float32)
    low, high = profile[:, :2].mean(1), profile[:, -2:].mean(1)
    low, high = np.minimum(low, high), np.maximum(low, high)
    steepest = np.abs(np.diff(profile, axis=1))[:, REACH - 1 : REACH + 2].max(1)
    good = (low < LUNG_HU) & (high > TISSUE_HU[0]) & (high < TISSUE_HU[1])
    return (steepest / (high - low).clip(1))[good], (low[good] < RANGES[AIR][1]).astype(np.intp)


def _width(sharpness: NDArray[np.float32]) -> float:
    return float(1 / np.quantile(sharpness, SHARP)) if len(sharpness) >= LEAST else np.nan
