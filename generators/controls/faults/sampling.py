"""Faults of planes and voxels: coarse, moved, shuffled or offset slices, a decoder's checkerboard."""

from __future__ import annotations

import numpy as np

from .intensity import Image


def coarse(hu: Image, strength: float, rng: np.random.Generator) -> Image:
    """Slices are averaged in groups of `strength` along Z, and each group is repeated."""
    step = int(strength)
    means = [hu[:, :, start : start + step].mean(2) for start in range(0, hu.shape[2], step)]
    return np.repeat(np.stack(means, axis=2), step, axis=2)[:, :, : hu.shape[2]]


def jitter(hu: Image, strength: float, rng: np.random.Generator) -> Image:
    """Each slice is moved by up to `strength` voxels along X and Y; the border is repeated."""
    reach = int(strength)
    out = np.empty_like(hu)
    for z in range(hu.shape[2]):
        dx, dy = rng.integers(-reach, reach + 1, 2)
        xs = np.clip(np.arange(hu.shape[0]) + dx, 0, hu.shape[0] - 1)
        ys = np.clip(np.arange(hu.shape[1]) + dy, 0, hu.shape[1] - 1)
        out[:, :, z] = hu[:, :, z][np.ix_(xs, ys)]
    return out


def shuffled_slabs(hu: Image, strength: float, rng: np.random.Generator) -> Image:
    """Slabs of `strength` slices are put in another order."""
    slabs = np.array_split(np.arange(hu.shape[2]), max(2, round(hu.shape[2] / strength)))
    order = rng.permutation(len(slabs))
    if (order == np.arange(len(slabs))).all():
        order = np.roll(order, 1)
    return np.asarray(hu[:, :, np.concatenate([slabs[i] for i in order])])


def slice_offsets(hu: Image, strength: float, rng: np.random.Generator) -> Image:
    """Each slice has an offset of its own, with a standard deviation of `strength` HU."""
    return np.asarray(hu + strength * rng.standard_normal((1, 1, hu.shape[2]), dtype=np.float32), np.float32)


def checkerboard(hu: Image, strength: float, rng: np.random.Generator) -> Image:
    """Neighbouring voxels differ by `strength` HU more, as after a transposed convolution."""
    x, y, z = np.ogrid[: hu.shape[0], : hu.shape[1], : hu.shape[2]]
    return np.asarray(hu + strength * (((x + y + z) % 2) - 0.5), np.float32)
