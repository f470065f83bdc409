"""Conversion between volumes in HU and the networks' cubes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import avg_pool3d

from medlord_bench.nn.intensity import Window, scale_hu, unscale_hu

DOWNSAMPLING = 4  # of the low-resolution branch


def to_cube(hu: NDArray[np.int16], window: Window) -> torch.Tensor:
    """HU (X, Y, Z) in RAS+ to float32 (1, slice, row, column) in [-1, 1], on the CPU.

    Slices run from feet to head, rows from front to back, columns from right to left, as in the authors' arrays, so
    that their weights give correctly oriented volumes.
    """
    return scale_hu(np.ascontiguousarray(hu.transpose(2, 1, 0)[:, ::-1, ::-1]), window)[None]


def from_cube(cube: torch.Tensor, window: Window) -> tuple[NDArray[np.int16], int]:
    """The inverse of `to_cube` for (slice, row, column): int16 (X, Y, Z), and the number of voxels that are not
    finite."""
    hu, not_finite = unscale_hu(cube, window)
    return np.ascontiguousarray(hu[:, ::-1, ::-1].transpose(2, 1, 0)), not_finite


def small(images: torch.Tensor) -> torch.Tensor:
    """Whole volumes at a quarter of the resolution: the mean of 4 x 4 x 4 voxels.

    The authors take every fourth voxel, which keeps the full noise of one voxel and shows the discriminator noise that
    the smooth low-resolution branch cannot generate.
    """
    return avg_pool3d(images, DOWNSAMPLING)
