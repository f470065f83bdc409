"""The ControlNet: widths, mask embedding, and that it starts from the unchanged U-Net."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from medlord_bench.errors import UserError
from medlord_bench.generators.medlord.configs import UNETS, ControlUNetConfig, UNetConfig
from medlord_bench.generators.medlord.controlnet import ControlNet, build_controlnet, control_channels
from medlord_bench.generators.medlord.unet import UNet, build_unet

TINY = UNetConfig(**{**UNETS["smoke"], "num_head_channels": (0, 16)})
EMBEDDINGS = {(4, 2): (8, 16), (4, 1): (8, 12, 16), (8, 2): (8, 12, 16), (8, 1): (4, 8, 12, 16)}


def _net(factor: int = 4, stride: int = 2, unet: UNetConfig = TINY, **changes: Any) -> ControlNet:
    torch.manual_seed(0)
    config = ControlUNetConfig(
        norm_num_groups=8, embedding_channels=EMBEDDINGS[factor, stride], initial_stride=stride, **changes
    )
    return build_controlnet(config, unet, masks=3, downsampling=factor)


def _unet(config: UNetConfig = TINY) -> UNet:
    torch.manual_seed(1)
    net = build_unet(config)
    torch.nn.init.normal_(net.out[2].conv.weight)  # zero in a fresh network, which would hide everything before it
    return net


def _inputs(factor: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 8, 4, 4, 2, generator=generator)
    masks = torch.rand(2, 3, 4 * factor, 4 * factor, 2 * factor, generator=generator).gt(0.5).float()
    return x, torch.tensor([3, 250]), masks


@pytest.mark.parametrize("with_conditioning", [False, True])
@pytest.mark.parametrize(("factor", "stride"), list(EMBEDDINGS))
def test_masks_reach_the_latents_for_each_autoencoder_and_start_without_effect(
    factor: int, stride: int, with_conditioning: bool
) -> None:
    control, unet = _net(factor, stride, with_conditioning=with_conditioning), _unet()
    x, t, masks = _inputs(factor)
    with torch.no_grad():
        residuals = control(x, t, control.embed(masks))
        assert torch.equal(unet(x, t, residuals), unet(x, t))


def test_the_condition_changes_the_prediction_once_weights_have_moved() -> None:
    control, unet = _net(), _unet()
    for value in control.parameters():
        torch.nn.init.normal_(value, std=0.05)
    x, t, masks = _inputs()
    with torch.no_grad():
        followed = unet(x, t, control(x, t, control.embed(masks)))
        other = unet(x, t, control(x, t, control.embed(1 - masks)))
        plain = unet(x, t)
    assert float((followed - other).abs().max()) > 1e-3
    assert float((followed - plain).abs().max()) > 1e-3


def test_gradients_reach_the_projections_through_a_frozen_unet() -> None:
    control, unet = _net(), _unet().requires_grad_(False)
    x, t, masks = _inputs()
    unet(x, t, control(x, t, control.embed(masks))).square().mean().backward()
    assert all(conv.weight.grad.abs().sum() > 0 for conv in control.controlnet_down_blocks)
    assert all(value.grad is None for value in unet.parameters())


def test_checkpointing_changes_no_gradient() -> None:
    x, t, masks = _inputs()
    gradients = []
    for checkpointing in (False, True):
        control = _net(unet=TINY.model_copy(update={"checkpointing": checkpointing}))
        for i, value in enumerate(control.parameters()):
            torch.nn.init.normal_(value, std=0.05, generator=torch.Generator().manual_seed(i))
        down, middle = control(x, t, control.embed(masks))
        (middle.square().mean() + sum(part.square().mean() for part in down)).backward()
        gradients.append([value.grad for value in control.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


# Counted in the authors' network; without conditioning it has projections that it does not apply.
@pytest.mark.parametrize(
    ("ratio", "with_conditioning", "count"),
    [
        (0.5, True, 21_905_824),
        (1.0, True, 86_112_000),
        (0.5, False, 17_761_696 - 2 * (128 * 128 + 128) - 3 * (256 * 256 + 256)),
    ],
)
def test_the_published_network_has_its_number_of_parameters(ratio: float, with_conditioning: bool, count: int) -> None:
    with torch.device("meta"):
        config = ControlUNetConfig(ratio=ratio, with_conditioning=with_conditioning)
        net = build_controlnet(config, UNetConfig(), 6, 4, "meta")
    assert sum(value.numel() for value in net.parameters()) == count


@pytest.mark.parametrize(
    ("ratio", "groups", "nearest"),
    [(0.25, 32, "0.5"), (0.7, 32, "0.5"), (0.8, 32, "1"), (0.3, 16, "0.25"), (0.01, 8, "0.125")],
)
def test_a_ratio_that_the_norms_do_not_allow_names_the_nearest_that_does(
    ratio: float, groups: int, nearest: str
) -> None:
    with pytest.raises(UserError, match=f"nearest valid ratio is {nearest}$"):
        control_channels(ratio, UNetConfig(), groups)
    control_channels(float(nearest), UNetConfig(), groups)


def test_a_ratio_that_splits_a_head_is_refused() -> None:
    wide_heads = UNetConfig(num_head_channels=(0, 0, 256, 256))
    with pytest.raises(UserError, match="nearest valid ratio is 1$"):
        control_channels(0.5, wide_heads, 32)


def test_norm_groups_that_no_ratio_fits_say_so() -> None:
    with pytest.raises(UserError, match="fewer than 96 norm groups"):
        control_channels(0.5, UNetConfig(), 96)


@pytest.mark.parametrize(
    ("stride", "embedding", "factor", "advice"),
    [
        (2, (32, 64), 8, "use 3 embedding_channels with initial_stride 2, or 4 with initial_stride 1"),
        (1, (32, 64), 4, "use 2 embedding_channels with initial_stride 2, or 3 with initial_stride 1"),
    ],
)
def test_masks_that_miss_the_latents_resolution_are_refused_with_what_would_fit(
    stride: Any, embedding: tuple, factor: int, advice: str
) -> None:
    config = ControlUNetConfig(embedding_channels=embedding, initial_stride=stride)
    with pytest.raises(UserError, match=advice):
        build_controlnet(config, UNetConfig(), 6, factor, "meta")
