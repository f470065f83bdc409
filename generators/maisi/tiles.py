"""Tiled application of the autoencoder to large volumes: overlapping windows, blended by a Gaussian.

NV-Generate decodes in this way with MONAI's `SlidingWindowInferer`. This module also encodes in this way; NV-Generate's
script encodes whole volumes, which exceeds the memory. Windows are laid out in latent voxels, so that they start at the
same voxels for encoding and decoding. MONAI's inferer does not ensure this if the output is coarser than the input.
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
    """First voxels of windows of `tile` along an axis of `size`. The last window ends at the end of the axis."""
    if tile >= size:
        return [0]
    stride = max(1, int(tile * (1 - overlap)))
    return [*range(0, size - tile, stride), size - tile]


def importance(tile: Sequence[int], written: int) -> Tensor:
    """The blending weight of each output voxel of a window, float32 (X, Y, Z), as in MONAI.

    A Gaussian about the centre with standard deviation of an eighth of the window, at least 0.001. All output voxels of
    one latent voxel (`written` per side) have the same weight.
    """
    axes = [np.exp((np.arange(n) - (n - 1) / 2) ** 2 / (-2 * (n / 8) ** 2)) for n in tile]
    # (X,), (Y,), (Z,) -> (X, Y, Z)
    weight = axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None, :]
    coarse = torch.from_numpy(np.maximum(weight, 1e-3).astype(np.float32))
    x, y, z = coarse.shape
    repeated = coarse[:, None, :, None, :, None].expand(x, written, y, written, z, written)
    return repeated.reshape(x * written, y * written, z * written)


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
    """Apply `network` to windows of `tile` latent voxels: (1, C, X, Y, Z) -> float32 (1, C', X', Y', Z') on the CPU.

    read, written: input and output voxels per latent voxel and side. One pass if `tile` covers the whole volume.
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
    for corner in itertools.islice(corners, 2) if is_dry_run(x) else corners:  # all windows need equal memory
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
