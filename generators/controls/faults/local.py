"""Local faults: seams between parts, false nodules, lungs without vessels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .intensity import Image

TILE_VOXELS = 24  # edge of a tile
LUNG_HU = (-980.0, -550.0)  # HU of lung without its vessels
MIN_LUNG_SHARE = 0.005  # of the volume: less is no lung
NODULE_RADIUS_VOXELS = (1.5, 2.5)
NODULE_HU = 40.0
VESSEL_HU = -700.0  # HU: brighter voxels inside the lungs are vessels, walls and bronchi
CLOSING_VOXELS = 2  # half the width of the vessels that are closed into the lungs


def octants(hu: Image, strength: float, rng: np.random.Generator) -> Image:
    """Each octant has an offset of its own, with a standard deviation of `strength` HU."""
    return _offsets(hu, [max(1, -(-n // 2)) for n in hu.shape], strength, rng)


def tiles(hu: Image, strength: float, rng: np.random.Generator) -> Image:
    """Each tile of 24 voxels a side has an offset of its own, with a standard deviation of `strength` HU."""
    return _offsets(hu, [min(TILE_VOXELS, max(1, n // 2)) for n in hu.shape], strength, rng)


def _offsets(hu: Image, sides: list[int], strength: float, rng: np.random.Generator) -> Image:
    counts = [-(-n // side) for n, side in zip(hu.shape, sides, strict=True)]
    offsets = strength * rng.standard_normal(counts, dtype=np.float32)
    places = np.ix_(*(np.arange(n) // side for n, side in zip(hu.shape, sides, strict=True)))
    return np.asarray(hu + offsets[places], np.float32)


def nodules(hu: Image, strength: float, rng: np.random.Generator) -> Image | None:
    """Adds `strength` balls of soft tissue with diameters of 3 to 5 voxels to the lungs. None if there is no lung."""
    lung = ndimage.binary_erosion(_lungs(hu), iterations=3)
    places = np.argwhere(lung)
    if len(places) < strength:
        return None
    out = hu.copy()
    for place in places[rng.choice(len(places), int(strength), replace=False)]:
        radius = rng.uniform(*NODULE_RADIUS_VOXELS)
        box = tuple(slice(max(0, p - 4), p + 5) for p in place)
        grids = np.ogrid[box]
        distance = np.sqrt(sum((grid - p) ** 2 for grid, p in zip(grids, place, strict=True)))
        part = np.clip(radius + 0.5 - distance, 0, 1)[tuple(slice(n) for n in out[box].shape)]
        out[box] += (NODULE_HU - out[box]) * part
    return out


def no_vessels(hu: Image, strength: float, rng: np.random.Generator) -> Image | None:
    """The vessels inside the lungs are filled with lung of the place. `strength` is not used. None if there is no
    lung."""
    lung = _lungs(hu)
    if lung.mean() < MIN_LUNG_SHARE:
        return None
    closed = ndimage.binary_closing(np.pad(lung, 4, mode="edge"), iterations=CLOSING_VOXELS)[4:-4, 4:-4, 4:-4]
    bright = closed & (hu > VESSEL_HU)
    inside = lung & ~bright
    weight = ndimage.gaussian_filter(inside.astype(np.float32), 3)
    level = ndimage.gaussian_filter(np.where(inside, hu, 0).astype(np.float32), 3) / np.maximum(weight, 1e-3)
    spread = float(np.std(hu[inside] - level[inside])) if inside.any() else 0.0
    grain = ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), 0.7)
    fill = level + spread * grain / max(float(grain.std()), 1e-6)
    return np.where(bright & (weight > 1e-2), fill, hu).astype(np.float32)


def _lungs(hu: Image) -> NDArray[np.bool_]:
    """Connected parts of lung density, without room air: parts of at least half a per cent of the volume."""
    smooth = ndimage.gaussian_filter(hu, 1)
    found, count = ndimage.label((smooth > LUNG_HU[0]) & (smooth < LUNG_HU[1]))
    sizes: NDArray[Any] = np.bincount(found.ravel(), minlength=count + 1)
    keep = sizes >= MIN_LUNG_SHARE * hu.size
    keep[0] = False
    return np.asarray(keep[found])
