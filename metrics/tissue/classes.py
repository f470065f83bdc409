"""Tissue classes of a volume's blocks, from HU and morphology, without a segmenter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .blocks import Blocks

AIR, LUNG, FAT, SOFT, CONTRAST, BONE = "air", "lung", "fat", "soft tissue", "contrast", "bone"
CLASSES = (AIR, LUNG, FAT, SOFT, CONTRAST, BONE)
# HU of a block's mean: wide, so that a shifted tissue is still whole; what leaves its range shows in the shares.
RANGES = {AIR: (-np.inf, -965), LUNG: (-965, -500), FAT: (-200, -20), SOFT: (-20, 130)}
BRIGHT = 130  # HU: contrast-filled blood or bone
QUIET = 1.5  # times the noise of the volume: a block with more has structure in it
LEAST = 20  # blocks for a number of a tissue
LOWEST = 0.25  # quantile of the blocks' noise: blocks of one tissue; the others have structure in them
Mask = NDArray[np.bool_]


def noise_of(noise: NDArray[np.float32]) -> float:
    """The noise in HU of some blocks: the lower quartile, since structure only adds. NaN below 20 blocks."""
    return float(np.quantile(noise, LOWEST)) if noise.size >= LEAST else np.nan


def volume_noise(blocks: Blocks) -> float:
    """The noise of a volume in fat and soft tissue, or, where there is none, in all blocks."""
    tissue = (blocks.mean > RANGES[FAT][0]) & (blocks.mean < RANGES[SOFT][1])
    own = noise_of(blocks.noise[tissue])
    return noise_of(blocks.noise.ravel()) if np.isnan(own) else own


def classes(blocks: Blocks, noise: float) -> dict[str, Mask]:
    """Class -> its blocks, borders included. noise: of the volume.

    Contrast-filled blood is bright, as quiet as the other tissues and in pieces of 20 blocks or more; bone is what else is
    bright and not beside it.
    """
    from scipy import ndimage

    found = {name: (blocks.mean >= low) & (blocks.mean < high) for name, (low, high) in RANGES.items()}
    bright = blocks.mean >= BRIGHT
    pieces, count = ndimage.label(bright & (blocks.noise < QUIET * noise))
    large = np.bincount(pieces.ravel(), minlength=count + 1) >= LEAST
    large[0] = False
    found[CONTRAST] = large[pieces]
    found[BONE] = bright & ~ndimage.binary_dilation(found[CONTRAST])
    return found


def inner(blocks: Blocks, found: dict[str, Mask], noise: float) -> dict[str, Mask]:
    """Class -> its blocks whose six neighbours are of the class, since borders mix tissues; fat and soft tissue without
    blocks of structure, such as small vessels; contrast and bone, whose parts are small, as a whole."""
    from scipy import ndimage

    quiet = blocks.noise < QUIET * noise
    return {
        name: ndimage.binary_erosion(mask, border_value=1) & (quiet if name in (FAT, SOFT) else True)
        for name, mask in found.items()
        if name not in (CONTRAST, BONE)
    } | {name: found[name] for name in (CONTRAST, BONE)}
