"""Slices of a volume in three planes, as a 2D network wants them: upright, grey, of one size, a few at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}  # plane -> the axis of (X, Y, Z) it is a slice of


def slice_indices(depth: int, count: int) -> list[int]:
    """`count` slices evenly spread over `depth` (the middles of as many equal slabs); all where there are fewer."""
    if depth <= count:
        return list(range(depth))
    return [(2 * i + 1) * depth // (2 * count) for i in range(count)]


def upright(hu: NDArray[np.int16], plane: str, indices: list[int]) -> Tensor:
    """Slices as a radiologist sees them, float32 (n, rows, columns).

    Axial: anterior above, the patient's right on the left. Coronal: head above, right on the left. Sagittal: head
    above, anterior on the left.
    """
    axis = PLANES[plane]
    chosen = torch.from_numpy(hu.take(indices, axis=axis).astype("float32")).movedim(axis, 0)  # (n, u, v), u before v
    # Both remaining axes run towards R, A or S: rows are v from its far end, columns u from its far end.
    return chosen.transpose(1, 2).flip(1, 2)


def chunks(
    hu: NDArray[np.int16], plane: str, count: int, window: tuple[int, int], size: int, chunk: int, device: str
) -> Iterator[Tensor]:
    """Grey slices in [0, 1], float32 (at most `chunk`, 1, size, size), of int16 (X, Y, Z) `hu`.

    Values are clipped to `window` (HU) before the resize, so that the resize cannot mix in what lies outside.
    """
    low, high = window
    indices = slice_indices(hu.shape[PLANES[plane]], count)
    for start in range(0, len(indices), chunk):
        grey = upright(hu, plane, indices[start : start + chunk]).to(device).clamp_(low, high)
        grey = (grey - low).div_(high - low)[:, None]
        yield F.interpolate(grey, (size, size), mode="bilinear", align_corners=False, antialias=True)
