"""Whether values can be HU of a CT: one rule, for real images and for generated ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

AIR, FAT = -1100, -100  # HU: air with its noise, lung, gas and fat lie between; below is padding, not air
LEAST_SHARE = 0.001  # of the voxels between the two
WRAPPED, WRAPPED_SHARE = 30_000, 0.02  # HU that no scanner writes: negative numbers that were read as unsigned
CLIPPED_SHARE = 0.05  # of the voxels at the lowest value
CLIPPED_ABOVE = -900  # a lowest value above it is no air
NARROW = 50  # HU between lowest and highest: z-scores
HALF = 0.5
DENSE, DENSE_SHARE = (800, 1300), 0.1  # HU: tissue and water without their intercept; in CT only dense bone and metal
LEAST_PADDING, LITTLE_TISSUE = 0.01, 0.01  # of the voxels
_OFFSET = 2**15


def implausible(hu: NDArray[Any], window: tuple[int, int] | None = None) -> str | None:
    """Why the values cannot be a CT in HU, with the evidence; None if they can. A necessary condition, not a proof.

    hu: int16. window: the HU window that the image is used in; a lowest value that it begins at is no evidence.

    A CT has fat, lung or air: at least 0.1 % of its voxels in -1100..-100 HU. MR, images scaled to [0, 1], [-1, 1], 0..255
    or z-scores, and stored values without their intercept have not. An image also fails that is mostly padding below
    -1100, that has wrapped unsigned values, or that was clipped to a display window.
    """
    counts = _counts(hu)
    total = int(counts.sum())
    there = np.flatnonzero(counts)
    low, high = int(there[0]) - _OFFSET, int(there[-1]) - _OFFSET
    if high - low <= 2:
        return f"values are in {low}..{high}: constant, or scaled to [0, 1] or [-1, 1]"

    def share(first: int, last: int) -> float:
        return float(counts[max(first + _OFFSET, 0) : last + _OFFSET + 1].sum()) / total

    body = share(AIR, FAT)
    padding = share(-_OFFSET, AIR - 1)
    wrapped = share(WRAPPED, _OFFSET - 1)
    if wrapped >= WRAPPED_SHARE:
        return (
            f"{100 * wrapped:.2g} % of the voxels are above {WRAPPED} HU: negative values that were stored as unsigned"
        )
    if body < LEAST_SHARE and not (window is not None and low >= window[0] >= FAT):
        return (
            f"values are in {low}..{high} with {100 * body:.2g} % between {AIR} and {FAT}: no fat, lung or air"
            + _likeness(counts, low, high)
        )
    rest = total - int(counts[low + _OFFSET])
    spike = rest < total and body - float(counts[low + _OFFSET] if low >= AIR else 0) / total < LEAST_SHARE
    dense = share(*DENSE) * total / max(rest, 1)
    if dense > HALF or (spike and dense > DENSE_SHARE):
        return (
            f"{100 * dense:.2g} % of the voxels above the lowest value are in {DENSE[0]}..{DENSE[1]} HU, where CT has only dense bone: "
            "stored values without their intercept of -1024, or an inverted image"
        )
    if padding > LEAST_PADDING and share(FAT, _OFFSET - 1) < LITTLE_TISSUE:
        return (
            f"{100 * padding:.3g} % of the voxels are below {AIR} HU and {100 * share(FAT, _OFFSET - 1):.2g} % above {FAT}, "
            "the HU of tissue: the intercept was applied twice, or the volume has only padding and lung"
        )
    if padding > HALF:
        return (
            f"{100 * padding:.3g} % of the voxels are below {AIR} HU: padding, and not air, fills most of the grid"
            + (", or the intercept was applied twice" if _median(counts, AIR, high) < -700 else "")
        )
    at_lowest = float(counts[low + _OFFSET]) / total
    if low > CLIPPED_ABOVE and at_lowest >= CLIPPED_SHARE and (window is None or low > window[0] + 1):
        return (
            f"the lowest value, {low} HU, is that of {100 * at_lowest:.2g} % of the voxels: clipped to a display window, so "
            "that air is missing (if that is meant, set dataset.hu_window to it)"
        )
    return None


def _counts(hu: NDArray[Any]) -> NDArray[np.int64]:
    """How often each int16 value occurs; plane by plane, since `bincount` makes 8 bytes of each voxel."""
    counts = np.zeros(2 * _OFFSET, np.int64)
    for plane in hu:
        counts += np.bincount(plane.ravel().astype(np.int64) + _OFFSET, minlength=2 * _OFFSET)
    return counts


def _median(counts: NDArray[np.int64], first: int, last: int) -> int:
    part = counts[first + _OFFSET : last + _OFFSET + 1]
    return int(np.searchsorted(part.cumsum(), part.sum() / 2)) + first


def _likeness(counts: NDArray[np.int64], low: int, high: int) -> str:
    """What the values look like instead."""
    if high - low < NARROW:
        return ", perhaps z-scores"
    if low >= 0 and high <= 255:
        return ", perhaps a display window scaled to 0..255"
    middle = _median(counts, AIR, high)
    if (low >= -50 or low < AIR) and high > 300 and -10 <= middle <= 1400:
        return ", perhaps stored values without their intercept of -1024"
    return ""
