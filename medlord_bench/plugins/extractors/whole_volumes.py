"""Whole volumes as input of a 3D network: resampled to its voxel size, in equal windows that fit in memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

LEAST_SIDE = 32  # voxels on each side after resampling; thinner volumes are extended by their border


def resampled(hu: NDArray[np.int16], spacing: Sequence[float], wanted: Sequence[float]) -> Tensor:
    """The volume (X, Y, Z) at another voxel size in mm: float32, linear along each axis, the first voxels' centres equal.

    Voxels are not averaged where it becomes coarser, as in the networks' training. The number of voxels is
    round((n - 1) * spacing / wanted + 1). The axis that shrinks most is first, so that memory is small.
    """
    ratios = [new / old for old, new in zip(spacing, wanted, strict=True)]
    found = torch.from_numpy(np.array(hu))  # a copy: a memory map is not writable
    for axis in sorted(range(3), key=lambda axis: -ratios[axis]):
        found = _along(found, axis, ratios[axis])
    return found.float()


def _along(volume: Tensor, axis: int, ratio: float) -> Tensor:
    old = volume.shape[axis]
    count = max(1, round((old - 1) / ratio + 1))
    places = (torch.arange(count, dtype=torch.float64) * ratio).clamp(max=old - 1)
    below = places.floor().long()
    share = (places - below).float().view([-1 if i == axis else 1 for i in range(3)])
    lower = volume.index_select(axis, below).float()
    return lower.lerp_(volume.index_select(axis, (below + 1).clamp(max=old - 1)).float(), share)


def extended(volume: Tensor, least: int = LEAST_SIDE) -> Tensor:
    """The volume (X, Y, Z) with at least `least` voxels on each side: its border repeated on both ends."""
    for axis, size in enumerate(volume.shape):
        if size < least:
            places = (torch.arange(least) - (least - size) // 2).clamp(0, size - 1)
            volume = volume.index_select(axis, places)
    return volume


def windows(shape: Sequence[int], largest: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """The volume in as few equal parts as fit in `largest`, without overlap: one part if it fits whole."""
    axes = []
    for size, most in zip(shape, largest, strict=True):
        ends = np.linspace(0, size, -(-size // most) + 1).round().astype(int).tolist()
        axes.append([slice(start, stop) for start, stop in itertools.pairwise(ends)])
    yield from itertools.product(*axes)


def averaged(volume: Tensor, largest: Sequence[int], network: Callable[[Tensor], Tensor]) -> NDArray[np.float32]:
    """(1, features): the mean over its windows of `network`, from (X, Y, Z) to (features,), weighted by their voxels."""
    total, weight = torch.zeros(()), 0
    for part in windows(volume.shape, largest):
        piece = extended(volume[part])
        size = volume[part].numel()
        total, weight = total + size * network(piece).double(), weight + size
    mean: NDArray[np.float32] = (total / weight).float().numpy()[None]
    return mean
