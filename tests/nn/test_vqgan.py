"""The VQ-GAN against monai.networks.nets.VQVAE with the same weights, for the ds4 and ds8 shapes."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import VQVAE
from torch._subclasses.fake_tensor import FakeTensorMode

from medlord_bench.errors import UserError
from medlord_bench.nn.checkpoints import load_strict
from medlord_bench.nn.vqgan.network import PRESETS, VQGAN, VQGANConfig, config_from_state

SHAPES = {"ds4": (8, 16), "ds8": (4, 8, 16)}


def monai_net(channels: tuple[int, ...], res_channels: tuple[int, ...] | None = None, codes: int = 256) -> VQVAE:
    torch.manual_seed(0)
    levels = len(channels)
    return VQVAE(
        3,
        1,
        1,
        channels=channels,
        num_res_layers=2,
        num_res_channels=res_channels or channels,
        downsample_parameters=((2, 4, 1, 1),) * levels,
        upsample_parameters=((2, 4, 1, 1, 0),) * levels,
        num_embeddings=codes,
        embedding_dim=8,
        decay=0.95,
    ).eval()


def pair(name: str) -> tuple[VQGAN, VQVAE]:
    theirs = monai_net(SHAPES[name])
    ours = VQGAN(config_from_state(theirs.state_dict())).eval()
    load_strict(ours, theirs.state_dict(), "monai")
    return ours, theirs


def images(side: int = 32) -> torch.Tensor:
    return torch.rand(1, 1, side, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_reconstructions_are_monais(name: str) -> None:
    ours, theirs = pair(name)
    x = images()
    torch.testing.assert_close(ours.encode(x), theirs.encode(x), atol=1e-5, rtol=0)
    indices = theirs.index_quantize(x)
    agreement = (ours.quantise(ours.encode(x)).indices == indices).float().mean()
    assert agreement > 0.999  # only ties within rounding may differ
    torch.testing.assert_close(ours.decode(ours.embed(indices)), theirs.decode_samples(indices), atol=1e-5, rtol=0)
    assert (ours(x)[0] - theirs(x)[0]).abs().max() < 1e-5


@pytest.mark.parametrize("name", SHAPES)
def test_gradients_and_codebook_of_a_training_step_are_monais(name: str) -> None:
    ours, theirs = pair(name)
    x = images()
    reconstruction, quantised = ours.train()(x)
    (reconstruction.square().mean() + quantised.loss).backward()
    other, loss = theirs.train()(x)
    (other.square().mean() + loss).backward()
    grads = {n: p.grad for n, p in theirs.named_parameters() if p.grad is not None}
    assert grads
    for n, p in ours.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(p.grad, grads[n], atol=1e-6, rtol=1e-3)
    state = ours.state_dict()
    for n, value in theirs.state_dict().items():
        torch.testing.assert_close(state[n], value, atol=1e-4, rtol=1e-4)


def test_checkpointing_changes_no_gradient() -> None:
    plain = VQGAN(VQGANConfig(channels=(4, 8), res_layers=1, codes=16, dim=3))
    spare = VQGAN(VQGANConfig(channels=(4, 8), res_layers=1, codes=16, dim=3, checkpointing=True))
    spare.load_state_dict(plain.state_dict())
    for net in (plain, spare):
        reconstruction, quantised = net(images(16))
        (reconstruction.square().sum() + quantised.loss).backward()
    for a, b in zip(plain.parameters(), spare.parameters(), strict=True):
        if a.requires_grad:
            torch.testing.assert_close(a.grad, b.grad)
    assert torch.equal(plain.quantiser.ema_w, spare.quantiser.ema_w)  # the codebook is not updated twice


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_monais_tensors(name: str) -> None:
    preset = PRESETS[name]
    with torch.device("meta"):
        ours, theirs = VQGAN(preset).state_dict(), monai_net(preset.channels, codes=preset.codes).state_dict()
    assert [(k, v.shape) for k, v in ours.items()] == [(k, v.shape) for k, v in theirs.items()]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_recovered_from_their_tensors(name: str) -> None:
    with torch.device("meta"):
        found = config_from_state(VQGAN(PRESETS[name]).state_dict())
    assert found == PRESETS[name].model_copy(update={"decay": found.decay})


def test_other_residual_channels_are_recovered() -> None:
    found = config_from_state(monai_net((8, 16), res_channels=(4, 6)).state_dict())
    assert (found.channels, found.res_channels) == ((8, 16), (4, 6))


@pytest.mark.parametrize("state", [{}, {"conv_in.conv.weight": torch.zeros(1)}])
def test_the_weights_of_another_network_are_refused(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(UserError, match="not a 3D VQ-VAE"):
        config_from_state(state)


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        (
            {"0.conv": (4, 1, 4, 4, 4), "1.conv1.conv": (4, 4, 3, 3, 3), "2.conv": (8, 4, 4, 4, 4)},
            "1 residual units on 2",
        ),
        ({"0.conv1.conv": (4, 4, 3, 3, 3)}, "1 residual units on 0 levels"),
        ({"0.conv": (4, 1, 3, 3, 3)}, "expected 4 cubed"),
        ({"0.conv": (4, 1, 4, 4, 3)}, "expected 4 cubed"),
        ({"0.conv": (4, 2, 4, 4, 4)}, "2 image channels, expected 1"),
    ],
)
def test_shapes_of_another_encoder_are_named(blocks: dict[str, tuple[int, ...]], words: str) -> None:
    last = {f"{len(blocks)}.conv": (3, 8, 3, 3, 3)}  # it maps to the channels of the codes
    state = {f"encoder.blocks.{name}.weight": torch.zeros(shape) for name, shape in (blocks | last).items()}
    with pytest.raises(UserError, match=words):
        config_from_state({**state, "quantizer.quantizer.embedding.weight": torch.zeros(16, 3)})


def test_the_presets_are_those_of_the_authors() -> None:
    """`configs/stage1` of MedLoRD's repository: channels, codes, decay."""
    found = {name: (one.channels, one.codes, one.dim, one.decay) for name, one in PRESETS.items()}
    assert found == {
        "ds4": ((128, 256), 16384, 8, 0.95),
        "ds8": ((128, 256, 512), 16384, 8, 0.98),
        "small": ((64, 128), 8192, 8, 0.99),
    }


def test_a_side_that_is_no_multiple_of_the_factor_is_refused() -> None:
    net = VQGAN(VQGANConfig(channels=(4, 8), res_layers=0, codes=16, dim=3))
    with pytest.raises(UserError, match=r"\(16, 16, 18\), expected multiples of 4"):
        net.encode(torch.zeros(1, 1, 16, 16, 18))
    with pytest.raises(UserError, match="tile"):
        net.decode(torch.zeros(1, 3, 4, 4, 4), tile=(6, 8, 8))


def test_a_dry_run_without_data_can_predict_a_training_step() -> None:
    with FakeTensorMode():
        net = VQGAN(PRESETS["small"].model_copy(update={"checkpointing": True}))
        reconstruction, quantised = net(torch.empty(2, 1, 64, 64, 64))
        (reconstruction.mean() + quantised.loss).backward()
        assert reconstruction.shape == (2, 1, 64, 64, 64)
