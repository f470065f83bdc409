"""Faults of HU: gain, gamma, bias field, noise, and bones without calcium."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlord_bench.volumes.noise import noise_of

Image = NDArray[np.float32]
AIR_HU, WINDOW_HU = -1000.0, 2000.0  # gamma bends the range from air to air + window
BONE_HU, BONE_DETAIL = 200.0, 0.1  # above it is bone; the share of its contrast that remains


def gain(hu: Image, strength: float, rng: np.random.Generator) -> Image:
    """HU times `strength`: a wrong rescale slope, with water right."""
    return hu * np.float32(strength)


def gamma(hu: Image, strength: float, rng: np.random.Generator) -> Image:
    """The range from -1000 to 1000 HU to the power of `strength`; its ends stay."""
    unit = np.clip((hu - AIR_HU) / WINDOW_HU, 0, 1)
    bent = AIR_HU + WINDOW_HU * unit**strength
    return np.where((hu > AIR_HU) & (hu < AIR_HU + WINDOW_HU), bent, hu).astype(np.float32)


def bias(hu: Image, strength: float, rng: np.random.Generator) -> Image:
    """A smooth field of HU is added: three cosines of random direction and phase, at most `strength` HU in size."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in hu.shape), indexing="ij", sparse=True)
    field = np.zeros(hu.shape, np.float32)
    for _ in range(3):
        waves, phase = rng.uniform(-2, 2, 3), rng.uniform(0, 2 * np.pi)
        field += np.cos(sum(float(wave) * axis for wave, axis in zip(waves, axes, strict=True)) + np.float32(phase))
    field -= field.mean()
    return np.asarray(hu + strength * field / np.abs(field).max(), np.float32)


def noise(hu: Image, strength: float, rng: np.random.Generator) -> Image:
    """White noise is added so that the standard deviation of the noise becomes `strength` times its own."""
    own = noise_of(hu, hu > hu.min())  # clipped air has none
    added = own * (strength**2 - 1) ** 0.5
    return np.asarray(hu + added * rng.standard_normal(hu.shape, dtype=np.float32), np.float32)


def soft_bones(hu: Image, strength: float, rng: np.random.Generator) -> Image | None:
    """Everything above 200 HU has `strength` HU, and a tenth of its own contrast. Contrast agent counts as bone."""
    bone: NDArray[Any] = hu > BONE_HU
    if not bone.any():
        return None
    return np.where(bone, strength + BONE_DETAIL * (hu - BONE_HU), hu).astype(np.float32)
