"""MAISI's autoencoder: the published shapes, MONAI's own arithmetic, and a training that interruption does not change."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi, MaisiGroupNorm3D
from numpy.typing import NDArray
from pydantic import ValidationError

from medlord_bench.contracts import DataProtocol, Grid, Run, Split
from medlord_bench.errors import MissingError, Stopped, UserError
from medlord_bench.generators.maisi.autoencoder import (
    Autoencoder,
    AutoencoderRecipe,
    for_precision,
    kl_divergence,
    load_autoencoder,
    save_autoencoder,
    to_unit,
)
from medlord_bench.generators.maisi.configs import AutoencoderConfig, NetConfig
from medlord_bench.nn.checkpoints import load_model
from medlord_bench.nn.training import Horizon, fit
from medlord_bench.util.seeds import noise

SMALL = NetConfig(channels=(4, 8, 8), num_res_blocks=1, norm_num_groups=4)
WINDOW = (-1000, 1000)
SHAPE = (16, 16, 16)
CONFIG = AutoencoderConfig(
    net=SMALL,
    patch=SHAPE,
    batch=2,
    micro_batch=1,
    steps=4,
    lr=3e-3,
    warmup=0,
    precision="fp32",
    perceptual=0,
    adversarial=0.01,
    discriminator_channels=4,
    discriminator_layers=1,
    validation_patches=2,
    validate_every=2,
    checkpoint_every=2,
)


class Ramps:
    """A cohort of images that rise from -1500 to 1500 HU along one axis each."""

    label_names: dict[int, str] = {}
    shape = (16, 16, 20)

    def __init__(self) -> None:
        self.protocol = DataProtocol(
            name="ramps",
            grid=Grid(shape=self.shape),
            fit="crop-pad",
            split="by hand",
            split_sha256="",
            counts={"train": 3, "val": 1},
            masks="none",
        )

    def ids(self, split: Split) -> Sequence[str]:
        return {"train": ["0", "1", "2"], "val": ["1"], "test": []}[split]

    def hu(self, case_id: str) -> NDArray[np.int16]:
        axis = int(case_id)
        ramp = np.linspace(-1500, 1500, self.shape[axis]).reshape([-1 if i == axis else 1 for i in range(3)])
        return np.broadcast_to(ramp, self.shape).astype(np.int16)

    def labels(self, case_id: str) -> NDArray[np.uint8] | None:
        return None


def _net(**changes: Any) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(SMALL.model_copy(update=changes))


def _recipe(run: Run, **changes: Any) -> AutoencoderRecipe:
    return AutoencoderRecipe(CONFIG.model_copy(update=changes), Ramps(), WINDOW, run)


# --------------------------------------------------------------------------------------------------------- the network
def test_the_published_autoencoder_has_its_tensors_names_and_shapes() -> None:
    with torch.device("meta"):
        state = Autoencoder(NetConfig()).state_dict()
    assert sum(value.numel() for value in state.values()) == 20_944_897
    assert len(state) == 130
    expected = {
        "encoder.blocks.0.conv.conv.weight": (64, 1, 3, 3, 3),
        "encoder.blocks.4.nin_shortcut.conv.conv.weight": (128, 64, 1, 1, 1),
        "decoder.blocks.0.conv.conv.weight": (256, 4, 3, 3, 3),
        "quant_conv_mu.conv.weight": (4, 4, 1, 1, 1),
        "quant_conv_log_sigma.conv.bias": (4,),
        "post_quant_conv.conv.weight": (4, 4, 1, 1, 1),
    }
    assert {name: tuple(state[name].shape) for name in expected} == expected


def test_encoding_and_decoding_are_monais_and_a_quarter_of_the_side() -> None:
    net = _net()
    x = noise((2, 1, 16, 12, 8), "image")
    with torch.no_grad():
        mean, deviation = net.encode(x)
        theirs = AutoencoderKlMaisi.encode(net, x)
        assert mean.shape == (2, 4, 4, 3, 2)
        torch.testing.assert_close((mean, deviation), theirs)
        assert bool((deviation > 0).all())
        back = net.decode(mean)
        assert back.shape == x.shape
        torch.testing.assert_close(back, AutoencoderKlMaisi.decode(net, mean))


def test_convolutions_in_parts_give_the_same_image() -> None:
    x = noise((1, 1, 8, 48, 8), "image")  # 12 latent voxels wide: 3 for each part, the fewest that are allowed
    whole, parts = _net(), _net(num_splits=4)
    with torch.no_grad():
        torch.testing.assert_close(parts.encode(x)[0], whole.encode(x)[0], atol=1e-5, rtol=1e-4)
        z = noise((1, 4, 2, 12, 2), "latent")
        torch.testing.assert_close(parts.decode(z), whole.decode(z), atol=1e-5, rtol=1e-4)


def test_recomputed_activations_give_the_same_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        net = _net(checkpointing=checkpointing)
        net.decode(net.encode(noise((1, 1, 8, 8, 8), "image"))[0]).square().mean().backward()
        gradients.append({name: value.grad for name, value in net.named_parameters() if value.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 20
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value)


@pytest.mark.parametrize(
    ("device", "precision", "halved"), [("cpu", "fp16", False), ("cuda", "fp16", True), ("cuda", "fp32", False)]
)
def test_float16_norms_are_for_cards_under_fp16_since_a_cpu_has_no_kernel(
    device: str, precision: Any, halved: bool
) -> None:
    net = for_precision(_net(), device, precision)
    norms = [module for module in net.modules() if isinstance(module, MaisiGroupNorm3D)]
    assert norms and all(module.norm_float16 is halved for module in norms)


def test_a_window_becomes_0_to_1_and_what_is_outside_is_clipped() -> None:
    unit = to_unit(np.array([-3000, -1000, 0, 500, 1000, 3000], np.int16), WINDOW)
    torch.testing.assert_close(unit, torch.tensor([0.0, 0.0, 0.5, 0.75, 1.0, 1.0]))


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (NetConfig, {"channels": (64, 100)}, r"channels\[1\] = 100 is not a multiple of norm_num_groups"),
        (AutoencoderConfig, {"patch": (128, 128, 126)}, "expected multiples of 4"),
        (AutoencoderConfig, {"patch": (512, 64, 64)}, "at most 496 voxels per side"),
        (AutoencoderConfig, {"patch": (8, 8, 8)}, "too small for 3 discriminator_layers"),
        (AutoencoderConfig, {"net": {"num_splits": 8}, "patch": (64, 64, 64)}, "choose fewer splits"),
        (AutoencoderConfig, {"net": {"num_splits": 3}}, "choose fewer splits"),
        (AutoencoderConfig, {"batch": 3, "micro_batch": 2}, "batch = 3 is not a multiple of micro_batch = 2"),
    ],
)
def test_an_autoencoder_that_cannot_be_trained_is_refused_by_field(
    kind: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        kind(**changes)


# ------------------------------------------------------------------------------------------------------------ training
def test_the_kl_term_is_torchs_divergence_summed_over_a_patch() -> None:
    mean, deviation = noise((3, 4, 2, 2, 2), "mean"), noise((3, 4, 2, 2, 2), "deviation").exp()
    normal = torch.distributions.Normal
    divergence = torch.distributions.kl_divergence(normal(mean, deviation), normal(torch.zeros(()), torch.ones(())))
    torch.testing.assert_close(kl_divergence(mean, deviation), divergence.flatten(1).sum(1).mean())


def test_a_batch_depends_on_seed_and_step_alone_and_stays_in_the_cohort(run: Run) -> None:
    first, second = _recipe(run), _recipe(run)
    second.batch(1)
    assert torch.equal(first.batch(5), second.batch(5))
    assert not torch.equal(first.batch(5), first.batch(6))
    assert not torch.equal(first.batch(5), _recipe(dataclasses.replace(run, seed=1)).batch(5))
    assert first.batch(5).shape == (2, 1, *SHAPE)
    assert 0 <= float(first.batch(5).min()) < float(first.batch(5).max()) <= 1


def test_the_learning_rate_warms_up_in_nv_generates_two_steps(run: Run) -> None:
    factor = _recipe(run, warmup=20).optimiser.lr_factor
    assert [factor(step) for step in (0, 9, 10, 19, 20, 500)] == [0.01, 0.01, 0.1, 0.1, 1.0, 1.0]


def test_micro_batches_give_the_gradient_of_the_whole_batch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)  # drawn in other portions, they are other numbers
    moved, losses = [], []
    for micro in (1, 2):
        recipe = _recipe(run, micro_batch=micro)
        figures = recipe.step(0, recipe.batch(0))
        losses.append({name: float(value) for name, value in figures.items()})
        moved.append(recipe.net.state_dict()["decoder.blocks.0.conv.conv.weight"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert set(losses[0]) == {"l1", "kl", "adversarial", "discriminator"}
    # Adam's first step is lr * sign(gradient): rounding shows only where a gradient is nearly 0.
    assert float(((moved[0] - moved[1]).abs() < 1e-4).float().mean()) > 0.98


def test_without_an_adversary_there_is_no_discriminator_and_no_term_of_it(run: Run) -> None:
    recipe = _recipe(run, adversarial=0)
    assert recipe.adversary is None and set(recipe.stateful()) == {"net", "optimiser"}
    assert set(recipe.step(0, recipe.batch(0))) == {"l1", "kl"}


def test_validation_repeats_itself_and_is_of_the_mean(run: Run) -> None:
    recipe = _recipe(run)
    before = recipe.validate(0)
    assert recipe.validate(7) == before and set(before) == {"loss", "psnr"}
    images = torch.stack([recipe.val.draw(run.seed, "autoencoder", "val", i) for i in range(2)])
    with torch.no_grad():
        rebuilt = [recipe.net.decode(recipe.net.encode(image[None])[0])[0].clamp(0, 1) for image in images]
    expected = torch.stack([(a - b).abs().mean() for a, b in zip(images, rebuilt, strict=True)]).mean()
    assert before["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_it_learns_to_rebuild_its_cohort(run: Run) -> None:
    recipe = _recipe(run)
    before = recipe.validate(0)["loss"]
    for step in range(40):
        recipe.step(step, recipe.batch(step))
    assert recipe.validate(40)["loss"] < 0.6 * before


def test_a_stopped_training_ends_in_the_weights_of_one_that_was_not(run: Run, tmp_path: Path) -> None:
    horizon = Horizon(CONFIG.steps, CONFIG.validate_every, CONFIG.checkpoint_every, CONFIG.selection)
    straight = fit(_recipe(run), horizon, tmp_path / "a", run, "autoencoder")
    looks = iter([False, False, True])
    with pytest.raises(Stopped):
        stopping = dataclasses.replace(run, stop=lambda: next(looks))
        fit(_recipe(run), horizon, tmp_path / "b", stopping, "autoencoder")
    resumed = fit(_recipe(run), horizon, tmp_path / "b", run, "autoencoder")
    for name in ("model.json", "model.safetensors"):
        assert (straight / name).read_bytes() == (resumed / name).read_bytes()


# ------------------------------------------------------------------------------------------------------------- on disk
@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_autoencoder(tmp_path / "saved", SMALL, _net().state_dict(), WINDOW, {})
    return tmp_path / "saved"


def test_a_saved_autoencoder_comes_back_frozen_with_its_window(saved: Path) -> None:
    net, window = load_autoencoder(saved, "cpu", "fp32")
    assert window == WINDOW and not net.training and net.config == SMALL
    assert not any(value.requires_grad for value in net.parameters())
    _, tensors = load_model(saved, "maisi.autoencoder")
    assert all(torch.equal(value, tensors[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"net": {"channels": [4, 6, 8], "norm_num_groups": 4}}, r"model\.json: field net"),
        ({"hu_window": [1]}, "hu_window: expected two numbers"),
        ({"hu_window": None}, "hu_window: expected two numbers"),
        ({}, "no field 'net'"),
    ],
)
def test_a_damaged_description_is_an_error_that_names_the_field(
    saved: Path, change: dict[str, Any], message: str
) -> None:
    found = json.loads((saved / "model.json").read_text())
    found["config"] = found["config"] | change if change else {}
    (saved / "model.json").write_text(json.dumps(found))
    with pytest.raises(UserError, match=message):
        load_autoencoder(saved, "cpu", "fp32")


def test_weights_that_are_not_there_are_an_error_and_never_random_ones(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="not found"):
        load_autoencoder(tmp_path / "elsewhere", "cpu", "fp32")
    (saved / "model.safetensors").unlink()
    with pytest.raises(MissingError, match=r"model\.safetensors: not found"):
        load_autoencoder(saved, "cpu", "fp32")
