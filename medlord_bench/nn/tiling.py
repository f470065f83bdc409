"""Application of a convolutional network tile by tile, with the same result as for the whole volume.

The network may contain only convolutions and pointwise activations (no normalisation over space, no attention). Each
output voxel then depends on a bounded box of input voxels, which this module computes from the layers. A tile is
computed from the box of its voxels, clipped at the border of the volume, so that padding is applied at the same
positions as without tiles.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from medlord_bench.contracts import Shape
from medlord_bench.memory.dry_run import is_dry_run

POINTWISE = (nn.ReLU, nn.LeakyReLU, nn.Dropout, nn.Identity)


@dataclass(frozen=True)
class Layer:
    """A convolution along one axis. transposed: it upsamples by `stride` instead of downsampling."""

    kernel: int
    stride: int
    padding: int
    dilation: int = 1
    output_padding: int = 0
    transposed: bool = False

    def size(self, n: int) -> int:
        """Output length for an input of length `n`."""
        extent = self.dilation * (self.kernel - 1)
        if self.transposed:
            return (n - 1) * self.stride - 2 * self.padding + extent + self.output_padding + 1
        return (n + 2 * self.padding - extent - 1) // self.stride + 1

    def reach(self, low: int, high: int) -> tuple[int, int]:
        """First and last input voxel on which output voxels low..high depend (possibly outside the volume)."""
        extent = self.dilation * (self.kernel - 1)
        if self.transposed:
            return -((extent - low - self.padding) // self.stride), (high + self.padding) // self.stride
        return low * self.stride - self.padding, high * self.stride - self.padding + extent


class Span(NamedTuple):
    """A tile along one axis, as half-open ranges.

    keep: output voxels of the tile. read: input voxels to read. inner: range of `keep` in the network's output.
    """

    keep: slice
    read: slice
    inner: slice


def axis_layers(network: nn.Module) -> tuple[tuple[Layer, ...], tuple[Layer, ...], tuple[Layer, ...]]:
    """The convolutions of `network` in order, for each of the three axes.

    Residual branches may be parallel to them if their receptive field is not larger. Raises ValueError if a module
    combines voxels in another way.
    """
    layers: list[tuple[Layer, Layer, Layer]] = []
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            layers.append(_convolution(module))
        elif not any(module.children()) and not isinstance(module, POINTWISE):
            raise ValueError(f"{type(module).__name__} cannot be tiled exactly; expected convolutions and ReLU")
    x, y, z = zip(*layers, strict=True)
    return x, y, z


def _convolution(module: nn.Conv3d | nn.ConvTranspose3d) -> tuple[Layer, Layer, Layer]:
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        raise ValueError(f"padding {module.padding!r}, mode {module.padding_mode!r}: expected a number and mode zeros")
    transposed = isinstance(module, nn.ConvTranspose3d)
    x, y, z = (
        Layer(kernel, stride, int(padding), dilation, extra, transposed)
        for kernel, stride, padding, dilation, extra in zip(
            module.kernel_size, module.stride, module.padding, module.dilation, module.output_padding, strict=True
        )
    )
    return x, y, z


def output_size(layers: Sequence[Layer], n: int) -> int:
    """Output length of a chain of layers for an input of length `n`."""
    for layer in layers:
        n = layer.size(n)
    return n


def spans(layers: Sequence[Layer], n: int, tile: int) -> Iterator[Span]:
    """The tiles of `tile` output voxels along one axis of an input of length `n`."""
    down = prod(layer.stride for layer in layers if not layer.transposed)
    up = prod(layer.stride for layer in layers if layer.transposed)
    total = output_size(layers, n)
    for start in range(0, total, tile):
        stop = min(start + tile, total)
        low, high = start, stop - 1
        for layer in reversed(layers):
            low, high = layer.reach(low, high)
        # The range starts and ends at multiples of the stride, so that the tile has the sampling grid of the volume.
        first = max(0, low // down * down)
        last = min(n, -(-(high + 1) // down) * down)
        shift = first * up // down
        yield Span(slice(start, stop), slice(first, last), slice(start - shift, stop - shift))


@torch.no_grad()
def apply_tiled(network: nn.Module, x: Tensor, tile: Shape, device: torch.device | str | None = None) -> Tensor:
    """`network(x)` for `x` (B, C, X, Y, Z), `tile` output voxels at a time; no gradients.

    Each tile is moved to the network's device and its result to `device` (default: the device of `x`). The network's
    device therefore needs no memory for the whole input and output. The result differs from untiled by rounding only.
    """
    layers = axis_layers(network)
    where = next(network.parameters()).device
    out: Tensor | None = None
    shape = [output_size(axis, n) for axis, n in zip(layers, x.shape[2:], strict=True)]
    axes = [list(spans(axis, n, t)) for axis, n, t in zip(layers, x.shape[2:], tile, strict=True)]
    tiles = list(itertools.product(*axes))
    if is_dry_run(x):  # the largest tile needs the most memory; the output exists from the second tile on
        tiles = 2 * [max(tiles, key=lambda tile: prod(span.read.stop - span.read.start for span in tile))]
    for i, j, k in tiles:
        # box (B, C, X', Y', Z') -> kept voxels (B, C', x, y, z), at most `tile`
        y = network(x[:, :, i.read, j.read, k.read].to(where))[:, :, i.inner, j.inner, k.inner]
        if out is None:
            out = torch.empty(*y.shape[:2], *shape, dtype=y.dtype, device=device or x.device)
        out[:, :, i.keep, j.keep, k.keep] = y.to(out.device)
        del y  # free it before the next tile is computed
    assert out is not None  # a volume has at least one tile
    return out
