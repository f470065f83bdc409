"""The noise power spectrum in homogeneous squares of each plane."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

SIDE = 8  # voxels of a square: in a patch of 64 voxels larger homogeneous ones are rare
PLANES = 64  # planes of each direction that are read, evenly spaced
LEAST = 12  # squares for a spectrum
TISSUE_HU = (-200, 130)  # HU of a square's mean: fat and soft tissue, in which noise is alike
QUIET = 1.5  # times the noise of the volume: a square with more has structure in it
ACROSS = {"axial": 2, "coronal": 1, "sagittal": 0}  # plane -> the axis across it


def mean_frequencies(hu: NDArray[np.int16], noise: float) -> dict[str, float]:
    """Plane -> mean frequency of the noise in cycles per voxel; NaN with fewer than 12 homogeneous squares.

    noise: standard deviation in HU of the volume's noise, which says what is homogeneous. The spectrum is that of Siewerdsen et
    al. 2002: squared Fourier magnitudes, averaged over squares without their mean and slopes; the mean frequency
    weights each by its power (Samei et al. 2019). White noise has 0.40, smoothed noise less.
    """
    return {plane: _mean_frequency(hu, axis, noise) for plane, axis in ACROSS.items()}


def _mean_frequency(hu: NDArray[np.int16], across: int, noise: float) -> float:
    power, count = np.zeros((SIDE, SIDE)), 0
    for squares in _squares(hu, across):
        mean = squares.mean((1, 2))
        rest = _without_slopes(squares - mean[:, None, None])
        deviation = np.sqrt((rest**2).sum((1, 2)) / (SIDE**2 - 3))
        good = (mean > TISSUE_HU[0]) & (mean < TISSUE_HU[1]) & (deviation > 0) & (deviation < QUIET * noise)
        power += (np.abs(np.fft.fft2(rest[good])) ** 2).sum(0)
        count += int(good.sum())
    if count < LEAST:
        return np.nan
    along = np.fft.fftfreq(SIDE)
    return float((np.hypot(along[:, None], along) * power).sum() / power.sum())


def _squares(hu: NDArray[np.int16], across: int) -> Iterator[NDArray[np.float32]]:
    """The squares (n, 8, 8) of one plane after another."""
    for at in range(0, hu.shape[across], -(-hu.shape[across] // PLANES)):
        plane: NDArray[np.int16] = np.moveaxis(hu, across, 0)[at]
        rows, columns = (n // SIDE for n in plane.shape)
        whole = plane[: rows * SIDE, : columns * SIDE].reshape(rows, SIDE, columns, SIDE)
        yield whole.swapaxes(1, 2).reshape(-1, SIDE, SIDE).astype(np.float32)


def _without_slopes(squares: NDArray[np.float32]) -> NDArray[np.float32]:
    """Squares of mean 0 without their slopes along both sides."""
    at = np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2
    unit = at / np.float32((at**2).sum() * SIDE)
    rows, columns = squares.sum(2) @ unit, squares.sum(1) @ unit
    return np.asarray(squares - rows[:, None, None] * at[:, None] - columns[:, None, None] * at)
