"""Tiled equals untiled, and the reach computed from layers equals the reach seen in gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from medlord_bench.nn.tiling import Layer, apply_tiled, axis_layers, output_size, spans
from medlord_bench.nn.vqgan.network import VQGAN, VQGANConfig


def network(levels: int) -> VQGAN:
    torch.manual_seed(levels)
    channels = (4, 6, 8)[:levels]
    return VQGAN(VQGANConfig(channels=channels, res_layers=1, codes=16, dim=3)).eval()


@settings(max_examples=20, deadline=None)
@given(
    levels=st.integers(1, 3),
    sides=st.tuples(*[st.integers(1, 6)] * 3),
    tile=st.tuples(*[st.integers(1, 7)] * 3),
    seed=st.integers(0, 99),
)
def test_tiled_encode_and_decode_equal_untiled(
    levels: int, sides: tuple[int, int, int], tile: tuple[int, int, int], seed: int
) -> None:
    net = network(levels)
    f = net.factor
    x = torch.rand(1, 1, *(f * side for side in sides), generator=torch.Generator().manual_seed(seed)) * 2 - 1
    in_voxels = (f * tile[0], f * tile[1], f * tile[2])
    with torch.no_grad():
        z = net.encode(x)
        torch.testing.assert_close(net.encode(x, in_voxels), z, atol=1e-5, rtol=0)
        torch.testing.assert_close(net.decode(z, in_voxels), net.decode(z), atol=1e-5, rtol=0)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_halo_covers_every_voxel_that_a_tile_depends_on(levels: int) -> None:
    net = network(levels)
    for part, channels, n in ((net.encoder, 1, 16 * net.factor), (net.decoder, 3, 20)):
        layers = axis_layers(part)[0]
        side = [output_size(layers, m) for m in (n, net.factor, net.factor)]
        span = list(spans(layers, n, tile=side[0] // 4))[1]
        x = torch.rand(1, channels, n, net.factor, net.factor, requires_grad=True)
        part(x)[:, :, span.keep].abs().sum().backward()
        assert x.grad is not None
        touched = x.grad.abs().sum(dim=(0, 1, 3, 4)).nonzero()[:, 0]
        assert span.read.start <= int(touched.min())
        assert int(touched.max()) < span.read.stop
        assert span.read.stop - span.read.start < n  # the test would be empty if a tile read everything


@pytest.mark.parametrize("layer", [Layer(3, 1, 1), Layer(4, 2, 1), Layer(4, 2, 1, transposed=True), Layer(3, 1, 2, 2)])
def test_output_sizes_are_torchs(layer: Layer) -> None:
    kind = nn.ConvTranspose1d if layer.transposed else nn.Conv1d
    module = kind(1, 1, layer.kernel, layer.stride, layer.padding, dilation=layer.dilation)
    for n in range(6, 12):
        assert layer.size(n) == module(torch.zeros(1, 1, n)).shape[-1]


@pytest.mark.parametrize(
    "layer", [Layer(3, 1, 1), Layer(4, 2, 1), Layer(3, 1, 2, 2), Layer(4, 2, 1, transposed=True), Layer(3, 1, 0)]
)
@pytest.mark.parametrize("at", [3, 4, 6])
def test_the_reach_of_a_layer_is_where_its_gradient_is(layer: Layer, at: int) -> None:
    """No voxel more and none less, so that no tile reads in vain."""
    kind = nn.ConvTranspose1d if layer.transposed else nn.Conv1d
    module = kind(1, 1, layer.kernel, layer.stride, layer.padding, dilation=layer.dilation)
    nn.init.ones_(module.weight)
    x = torch.ones(1, 1, 20, requires_grad=True)
    module(x)[0, 0, at : at + 2].sum().backward()
    assert x.grad is not None
    touched = x.grad[0, 0].nonzero()[:, 0].tolist()
    assert layer.reach(at, at + 1) == (touched[0], touched[-1])


def test_a_norm_over_space_is_refused() -> None:
    with pytest.raises(ValueError, match="InstanceNorm3d"):
        axis_layers(nn.Sequential(nn.Conv3d(1, 1, 3), nn.InstanceNorm3d(1)))


def test_tiles_are_assembled_on_the_chosen_device() -> None:
    net = network(1)
    out = apply_tiled(net.decoder, torch.zeros(1, 3, 4, 4, 4), (4, 4, 4), device="meta")
    assert out.device.type == "meta"
    assert out.shape == (1, 1, 8, 8, 8)


def test_tiles_bound_what_a_layer_holds() -> None:
    net, largest = network(2), 0

    def watch(module: nn.Module, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        nonlocal largest
        largest = max(largest, out.shape[2])

    net.encoder.blocks[0].register_forward_hook(watch)
    x = torch.zeros(1, 1, 256, 4, 4)
    net.encode(x, (32, 4, 4))
    assert largest < 64  # untiled: 128


def test_a_dry_run_computes_the_largest_tile_twice() -> None:
    """Two, since the output is there from the second on. A tile in the middle reads a halo on both sides."""
    read: list[tuple[int, ...]] = []
    with FakeTensorMode():
        net = network(1)
        x = torch.zeros(1, 1, 64, 8, 8)
        net.encoder.register_forward_pre_hook(lambda _, inputs: read.append(tuple(inputs[0].shape[2:])))
        apply_tiled(net.encoder, x, (4, 4, 4))
    every = [span.read.stop - span.read.start for span in spans(axis_layers(net.encoder)[0], 64, 4)]
    assert every[-1] < max(every), "the test would be empty if the last tile were the largest"
    assert read == [(max(every), 8, 8)] * 2
