"""The autoencoder over a volume that is too large for it at once: overlapping windows, blended by a Gaussian.

As NV-Generate decodes with MONAI's `SlidingWindowInferer`, and here encodes too; its own script encodes whole volumes,
which is what runs out of memory. Windows are laid out in latent voxels, so that they begin on the same voxels in both
directions, which MONAI's inferer does not see to when the output is the coarser one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medlord_bench.contracts import Shape
from medlord_bench.memory.dry_run import is_dry_run, on_host


def starts(size: int, tile: int, overlap: float) -> list[int]:
    """Where windows of `tile` begin along an axis of `size`; the last one ends with the axis."""
    if tile >= size:
        return [0]
    stride = max(1, int(tile * (1 - overlap)))
    return [*range(0, size - tile, stride), size - tile]


def importance(tile: Sequence[int], written: int) -> Tensor:
    """How much each output voxel of a window counts, float32 (X, Y, Z): a Gaussian about its middle, deviation an eighth
    of the window, never below 0.001; MONAI's. `written` output voxels a side share their latent voxel's."""
    axes = [np.exp((np.arange(n) - (n - 1) / 2) ** 2 / (-2 * (n / 8) ** 2)).repeat(written) for n in tile]
    weight = axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None, :]
    return torch.from_numpy(np.maximum(weight, 1e-3).astype(np.float32))


@torch.no_grad()
def blended(
    network: Callable[[Tensor], Tensor],
    x: Tensor,
    tile: Shape,
    overlap: float,
    read: int,
    written: int,
    device: str,
) -> Tensor:
    """`network` over windows of `tile` latent voxels of `x` (1, C, X, Y, Z); float32 (1, C', X', Y', Z') on the CPU.

    read, written: input and output voxels per latent voxel and side. One pass where `tile` holds the whole of it.
    """
    sides = [side // read for side in x.shape[2:]]
    window = [min(a, b) for a, b in zip(tile, sides, strict=True)]
    if window == sides:
        return network(x.to(device)).float().cpu()
    out: Tensor | None = None
    with on_host():
        weight = importance(window, written)
        total = torch.zeros([side * written for side in sides])
    corners = itertools.product(*(starts(n, t, overlap) for n, t in zip(sides, window, strict=True)))
    for corner in itertools.islice(corners, 2) if is_dry_run(x) else corners:  # all windows take equal memory
        source: Any = tuple(slice(c * read, (c + t) * read) for c, t in zip(corner, window, strict=True))
        target: Any = tuple(slice(c * written, (c + t) * written) for c, t in zip(corner, window, strict=True))
        y = network(x[(..., *source)].to(device)).float().cpu()
        with on_host():
            if out is None:
                out = torch.zeros(*y.shape[:2], *total.shape)
            out[(..., *target)] += y * weight
            total[target] += weight
    assert out is not None  # a volume has at least one window
    return out.div_(total)
