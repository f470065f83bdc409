"""The U-Net: that it is MONAI's, at the published sizes, with every kernel and with checkpointing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.networks.nets import DiffusionModelUNet
from pydantic import ValidationError
from torch import nn

from medlord_bench.errors import UserError
from medlord_bench.generators.medlord.configs import UNETS, UNetConfig
from medlord_bench.generators.medlord.unet import UNet, build_unet, check_latent_shape, config_from_state

TINY = UNetConfig(**UNETS["smoke"])


def randomise(net: nn.Module, seed: int = 0) -> nn.Module:
    """Weights without any of the zeros that these networks start from, at a scale that keeps outputs near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in net.parameters():
            drawn = torch.randn(value.shape, generator=generator)
            value.copy_(drawn / value[0].numel() ** 0.5 if value.ndim > 1 else 1 + 0.1 * drawn)
    return net


def _inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 8, 4, 6, 2, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 299])


def _tiny(**changes: Any) -> UNet:
    net = build_unet(UNetConfig(**{**UNETS["smoke"], **changes}))
    randomise(net)
    return net


@pytest.mark.parametrize("final_act", ["none", "silu"])
def test_the_network_is_monais_but_for_the_last_activation(final_act: str) -> None:
    ours = _tiny(final_act=final_act)
    theirs = DiffusionModelUNet(
        3,
        8,
        8,
        num_res_blocks=1,
        channels=TINY.channels,
        attention_levels=TINY.attention_levels,
        num_head_channels=TINY.num_head_channels,
        norm_num_groups=TINY.norm_num_groups,
        include_fc=False,
    )
    theirs.load_state_dict(ours.state_dict(), strict=True)
    if final_act == "none":
        theirs.out[1] = nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(ours(*_inputs()), theirs(*_inputs()), atol=1e-5, rtol=1e-5)


def test_the_last_activation_changes_the_output() -> None:
    with torch.no_grad():
        difference = _tiny(final_act="none")(*_inputs()) - _tiny(final_act="silu")(*_inputs())
    assert float(difference.abs().max()) > 0.01


def test_an_untrained_network_predicts_nothing() -> None:
    with torch.no_grad():
        assert not build_unet(TINY)(*_inputs()).any()


def test_the_explicit_softmax_gives_the_same_velocities() -> None:
    with torch.no_grad():
        torch.testing.assert_close(_tiny(attention="math")(*_inputs()), _tiny()(*_inputs()), atol=1e-5, rtol=1e-5)


def test_checkpointing_changes_no_gradient() -> None:
    plain, checkpointed = _tiny(), _tiny(checkpointing=True)
    for net in (plain, checkpointed):
        net(*_inputs()).square().mean().backward()
    for (name, a), b in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), name


def test_residuals_are_added_to_skips_and_middle() -> None:
    net = _tiny()
    x, t = _inputs()
    skips = []
    handles = [net.conv_in.register_forward_hook(lambda module, inputs, output: skips.append(output))]
    handles += [
        block.register_forward_hook(lambda module, inputs, output: skips.extend(output[1])) for block in net.down_blocks
    ]
    with torch.no_grad():
        plain = net(x, t)
        for handle in handles:
            handle.remove()
        middle = torch.zeros(2, 64, 2, 3, 1)
        nothing = ([torch.zeros_like(skip) for skip in skips], middle)
        assert torch.equal(net(x, t, nothing), plain)
        for i in range(len(skips)):
            one = [torch.zeros_like(skip) for skip in skips]
            one[i] += 1
            assert not torch.equal(net(x, t, (one, middle)), plain), i
        assert not torch.equal(net(x, t, (nothing[0], middle + 1)), plain)
        with pytest.raises(ValueError, match="zip"):
            net(x, t, (nothing[0][:-1], middle))


# Counted in the authors' networks, less the projections that those have and do not apply.
@pytest.mark.parametrize(
    ("preset", "upstream", "unused"),
    [
        ("medlord", 166_615_816, 2 * (256 * 256 + 256) * 2 + (256 * 256 + 256) + (512 * 512 + 512) * 6),
        ("3level", 215_380_872, (512 * 512 + 512) * 8),
        ("smoke", 1_783_656, (64 * 64 + 64) * 4),
    ],
)
def test_the_presets_have_the_published_number_of_parameters(preset: str, upstream: int, unused: int) -> None:
    with torch.device("meta"):
        net = build_unet(UNetConfig(**UNETS[preset]), "meta")
    assert sum(value.numel() for value in net.parameters()) == upstream - unused


@pytest.mark.parametrize("preset", list(UNETS))
def test_a_state_dict_tells_its_architecture(preset: str) -> None:
    config = UNetConfig(**UNETS[preset])
    with torch.device("meta"):
        state = build_unet(config, "meta").state_dict()
    assert config_from_state(state, config.num_head_channels[-1], config.norm_num_groups) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": (32, 64, 128)}, "attention_levels has 2 entries, channels has 3"),
        ({"norm_num_groups": 24}, r"channels\[0\] = 32 is not a multiple of norm_num_groups"),
        ({"num_head_channels": (0, 48)}, r"num_head_channels\[1\] = 48 does not divide channels\[1\] = 64"),
        ({"attention_levels": (False, False), "num_head_channels": (0, 0)}, r"num_head_channels\[1\] = 0"),
        ({"channels": ()}, "channels"),
        ({"depth": 2}, "depth"),
        ({"attention": "flash"}, "attention"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_by_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        UNetConfig(**{**UNETS["smoke"], **changes})


def test_latents_that_do_not_halve_are_refused_before_the_first_step() -> None:
    check_latent_shape(UNetConfig(), (64, 64, 32))
    with pytest.raises(UserError, match=r"multiples of 8, the latents are \(64, 64, 20\)"):
        check_latent_shape(UNetConfig(), (64, 64, 20))
