"""MAISI's U-Net and ControlNet: published sizes, MONAI's own forward passes, and conditions that enter as published."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.apps.generation.maisi.networks.controlnet_maisi import ControlNetMaisi
from monai.apps.generation.maisi.networks.diffusion_model_unet_maisi import DiffusionModelUNetMaisi
from pydantic import ValidationError

from medlord_bench.generators.maisi.configs import ControlNetConfig, DiffusionConfig, UNetConfig
from medlord_bench.generators.maisi.unet import ControlNet, UNet, bit_planes, build_controlnet, build_unet, copy_encoder
from medlord_bench.util.seeds import noise

NET = UNetConfig(
    channels=(16, 32),
    num_res_blocks=1,
    attention_levels=(False, True),
    num_head_channels=(0, 16),
    norm_num_groups=8,
)
SPACING = torch.tensor([[0.8, 0.8, 2.5], [1.0, 0.7, 0.5]])
TIMES = torch.tensor([1000.0, 37.0])


def _config(schedule: Any, **net: Any) -> DiffusionConfig:
    return DiffusionConfig(
        net=NET.model_copy(update=net), schedule=schedule, top_region="chest", bottom_region="abdomen"
    )


def _opened(net: Any) -> Any:
    """With the convolutions that start at zero, and hide what is before them, made random."""
    torch.manual_seed(1)
    for value in net.parameters():
        if not value.any():
            torch.nn.init.normal_(value, std=0.05)
    return net.eval()


@pytest.fixture(params=["rflow", "ddpm"])
def unet(request: pytest.FixtureRequest) -> UNet:
    torch.manual_seed(0)
    net: UNet = _opened(build_unet(_config(request.param), 4, "cpu"))
    return net


def _control(unet: UNet) -> ControlNet:
    torch.manual_seed(2)
    net: ControlNet = _opened(build_controlnet(unet.config, (4, 8, 8), 4, "cpu"))
    return net


# ------------------------------------------------------------------------------------------------------ published sizes
@pytest.mark.parametrize(
    ("schedule", "unet", "tensors", "controlnet", "control_tensors"),
    [("rflow", 180_500_868, 435, 72_037_072, 231), ("ddpm", 169_370_884, 372, 68_644_944, 196)],
)
def test_the_networks_have_the_published_number_of_parameters(
    schedule: Any, unet: int, tensors: int, controlnet: int, control_tensors: int
) -> None:
    config = DiffusionConfig(schedule=schedule)
    with torch.device("meta"):
        first = UNet(config, 4).state_dict()
        second = ControlNet(config, ControlNetConfig().embedding_channels, 4).state_dict()
    assert (sum(value.numel() for value in first.values()), len(first)) == (unet, tensors)
    assert (sum(value.numel() for value in second.values()), len(second)) == (controlnet, control_tensors)
    assert first["spacing_layer.0.weight"].shape == (256, 3)
    assert first["conv_in.conv.weight"].shape == (64, 4, 3, 3, 3)
    assert first["out.2.conv.weight"].shape == (4, 64, 3, 3, 3)
    assert second["controlnet_cond_embedding.conv_in.conv.weight"].shape == (8, 8, 3, 3, 3)
    flow = schedule == "rflow"
    assert ("class_embedding.weight" in first) is flow and ("class_embedding.weight" in second) is flow
    assert ("top_region_index_layer.0.weight" in first) is not flow
    if flow:
        assert first["class_embedding.weight"].shape == (128, 256)


# --------------------------------------------------------------------------------------------------- MONAI's arithmetic
def _theirs(unet: UNet, x: torch.Tensor, residuals: Any = (None, None)) -> torch.Tensor:
    """MONAI's forward pass with the inputs that NV-Generate's scripts give it: all but times are times 100."""
    flow = unet.config.schedule == "rflow"
    regions = {
        "top_region_index_tensor": torch.tensor([[0.0, 100, 0, 0]] * 2),
        "bottom_region_index_tensor": torch.tensor([[0.0, 0, 100, 0]] * 2),
    }
    out: torch.Tensor = DiffusionModelUNetMaisi.forward(
        unet,
        x,
        TIMES,
        class_labels=torch.tensor([1, 1]) if flow else None,
        spacing_tensor=SPACING * 100,
        down_block_additional_residuals=residuals[0],
        mid_block_additional_residual=residuals[1],
        **({} if flow else regions),
    )
    return out


def test_a_forward_pass_is_monais_on_nv_generates_inputs(unet: UNet) -> None:
    x = noise((2, 4, 4, 4, 2), "x")
    with torch.no_grad():
        ours = unet(x, TIMES, SPACING)
        torch.testing.assert_close(ours, _theirs(unet, x))
        assert float((unet(x, TIMES, SPACING * 1.1) - ours).abs().max()) > 1e-4, "the spacing is not read"
        assert float((unet(x, TIMES - 5, SPACING) - ours).abs().max()) > 1e-5, "the time is not read"


def test_steering_is_monais_in_both_networks(unet: UNet) -> None:
    x, control = noise((2, 4, 4, 4, 2), "x"), _control(unet)
    planes = bit_planes((noise((2, 16, 16, 8), "labels") > 0).to(torch.uint8) * 115)
    with torch.no_grad():
        down, middle = control(x, TIMES, control.embed(planes))
        labels = torch.tensor([1, 1]) if unet.config.schedule == "rflow" else None
        their_down, their_middle = ControlNetMaisi.forward(control, x, TIMES, planes, class_labels=labels)
        torch.testing.assert_close((*down, middle), (*their_down, their_middle))
        ours = unet(x, TIMES, SPACING, (down, middle))
        # MONAI adds to the skip connections in place, so its copies are given.
        theirs = _theirs(unet, x, ([value.clone() for value in down], middle.clone()))
        torch.testing.assert_close(ours, theirs)
        assert float((ours - unet(x, TIMES, SPACING)).abs().max()) > 1e-3


def test_a_fresh_controlnet_changes_nothing_and_starts_from_the_unets_encoder(unet: UNet) -> None:
    control = build_controlnet(unet.config, (4, 8, 8), 4, "cpu")
    copied = copy_encoder(unet, control)
    assert torch.equal(control.conv_in.conv.weight, unet.conv_in.conv.weight)
    name = "down_blocks.1.attentions.0.attn.to_q.weight"
    assert name in control.state_dict(), [key for key in control.state_dict() if "to_q" in key]
    assert torch.equal(control.state_dict()[name], unet.state_dict()[name])
    shared = {
        key
        for key, value in control.state_dict().items()
        if getattr(unet.state_dict().get(key), "shape", 0) == value.shape
    }
    assert copied == len(shared) and not any(key.startswith("controlnet_") for key in shared)
    x = noise((2, 4, 4, 4, 2), "x")
    with torch.no_grad():
        residuals = control(x, TIMES, control.embed(torch.ones(2, 8, 16, 16, 8)))
        assert torch.equal(unet(x, TIMES, SPACING, residuals), unet(x, TIMES, SPACING))


def test_recomputed_activations_give_the_same_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        net = _opened(build_unet(_config("rflow", checkpointing=checkpointing), 4, "cpu"))
        control = _control(net)
        planes = bit_planes(torch.full((2, 16, 16, 8), 5, dtype=torch.uint8))
        x = noise((2, 4, 4, 4, 2), "x")
        net(x, TIMES, SPACING, control(x, TIMES, control.embed(planes))).square().mean().backward()
        both = [*net.named_parameters(), *control.named_parameters("control")]
        gradients.append({name: value.grad for name, value in both if value.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 100
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value)


def test_attention_kernels_agree(unet: UNet) -> None:
    explicit = build_unet(_config(unet.config.schedule, attention="math"), 4, "cpu").eval()
    explicit.load_state_dict(unet.state_dict())
    x = noise((2, 4, 4, 4, 2), "x")
    with torch.no_grad():
        torch.testing.assert_close(explicit(x, TIMES, SPACING), unet(x, TIMES, SPACING), atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------------------------------------------------- conditions
def test_labels_enter_as_their_bits_the_lowest_first() -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(1, 8, 8, 4)
    planes = bit_planes(torch.from_numpy(labels))
    expected = np.moveaxis(np.unpackbits(labels[..., None], axis=-1, bitorder="little"), -1, 1)
    assert planes.dtype == torch.float32 and planes.shape == (1, 8, 8, 8, 4)
    np.testing.assert_array_equal(planes.numpy(), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": (16, 32, 64)}, "attention_levels has 2 entries, channels has 3"),
        ({"norm_num_groups": 12}, r"channels\[0\] = 16 is not a multiple of norm_num_groups"),
        ({"num_head_channels": (0, 24)}, r"num_head_channels\[1\] = 24 does not divide channels\[1\] = 32"),
        ({"attention_levels": (False, False), "num_head_channels": (0, 0)}, r"num_head_channels\[1\] = 0"),
        ({"attention": "flash"}, "attention"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_by_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        UNetConfig(**{**NET.model_dump(), **changes})
