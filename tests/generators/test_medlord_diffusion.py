"""Training and sampling of latents: exact under interruption and batching, and that it learns what it is shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from medlord_bench.contracts import DataProtocol, Grid, Run, Split
from medlord_bench.errors import MissingError, Stopped, UserError
from medlord_bench.generators.medlord.conditioning import ControlNetRecipe, load_controlnet, region_masks
from medlord_bench.generators.medlord.configs import UNETS, ControlNetConfig, ControlUNetConfig, UNetConfig
from medlord_bench.generators.medlord.diffusion import (
    Diffusion,
    DiffusionConfig,
    DiffusionRecipe,
    load_diffusion,
    sample_latents,
)
from medlord_bench.generators.medlord.schedule import CosineSchedule
from medlord_bench.generators.medlord.unet import build_unet
from medlord_bench.nn.checkpoints import load_model
from medlord_bench.nn.training import Horizon, fit
from medlord_bench.util.seeds import noise

NET = UNetConfig(**UNETS["tiny"])
SHAPE = (4, 4, 2)
CONFIG = DiffusionConfig(
    net=NET, timesteps=20, batch=4, steps=6, lr=2e-3, precision="fp32", validate_every=3, checkpoint_every=2
)


class FewLatents:
    """Five training and two validation latents that are all the same pattern, with a little noise."""

    scale = 2.5

    def __init__(self, channels: int = 8, splits: Mapping[str, int] | None = None) -> None:
        self.channels, self.splits = channels, splits or {"train": 5, "val": 2, "test": 0}

    def ids(self, split: Split) -> Sequence[str]:
        return [f"{split}-{i}" for i in range(self.splits[split])]

    def latent(self, case_id: str) -> torch.Tensor:
        shape = (self.channels, *SHAPE)
        return noise(shape, "pattern") + 0.1 * noise(shape, case_id)


class Halves:
    """A cohort whose masks are the left (1) and right (2) half of a 16 x 16 x 8 volume."""

    label_names = {1: "lung_left", 2: "lung_right", 3: "aorta"}

    def __init__(self, regions: tuple[str, ...] = ("lungs", "lung_left", "aorta")) -> None:
        self.protocol = DataProtocol(
            name="halves",
            grid=Grid(shape=(16, 16, 8)),
            fit="crop-pad",
            split="by hand",
            split_sha256="",
            counts={"train": 5},
            masks="dataset",
            condition_regions=regions,
        )

    def ids(self, split: Split) -> Sequence[str]:
        return FewLatents().ids(split)

    def hu(self, case_id: str) -> NDArray[np.int16]:
        return np.zeros((16, 16, 8), np.int16)

    def labels(self, case_id: str) -> NDArray[np.uint8] | None:
        labels = np.ones((16, 16, 8), np.uint8)
        labels[8:] = 2
        return labels


def _horizon(config: Any, steps: int | None = None) -> Horizon:
    return Horizon(steps or config.steps, config.validate_every, config.checkpoint_every, config.selection)


def _diffusion() -> Diffusion:
    torch.manual_seed(3)
    unet = build_unet(NET).eval().requires_grad_(False)
    torch.nn.init.normal_(unet.out[2].conv.weight, std=0.05)
    return Diffusion(unet, CosineSchedule(20), SHAPE, 2.5)


# ----------------------------------------------------------------------------------------------------------- training
def test_a_batch_depends_on_the_step_alone(run: Run) -> None:
    first, second = DiffusionRecipe(CONFIG, FewLatents(), run), DiffusionRecipe(CONFIG, FewLatents(), run)
    second.batch(3)  # another history
    a, b = first.batch(5), second.batch(5)
    assert torch.equal(a.latents, b.latents) and torch.equal(a.noise, b.noise) and torch.equal(a.timesteps, b.timesteps)
    assert not torch.equal(a.noise, first.batch(6).noise)
    other = DiffusionRecipe(CONFIG, FewLatents(), dataclasses.replace(run, seed=1))
    assert not torch.equal(a.noise, other.batch(5).noise)


def test_an_epoch_shows_every_case_once_and_every_timestep_can_come(run: Run) -> None:
    recipe = DiffusionRecipe(CONFIG.model_copy(update={"batch": 5}), FewLatents(), run)
    cases = torch.stack([recipe.latents.latent(case) for case in recipe.latents.ids("train")])
    orders = []
    for epoch in range(3):
        shown = recipe.batch(epoch).latents
        orders.append([int((cases - latent).abs().flatten(1).sum(1).argmin()) for latent in shown])
        assert sorted(orders[-1]) == [0, 1, 2, 3, 4]
    assert orders[0] != orders[1] or orders[1] != orders[2]
    drawn = {int(t) for step in range(60) for t in recipe.batch(step).timesteps}
    assert drawn == set(range(20))


def test_micro_batches_give_the_step_of_the_whole_batch(run: Run) -> None:
    weights = []
    for micro in (None, 1, 2):
        recipe = DiffusionRecipe(CONFIG.model_copy(update={"micro_batch": micro}), FewLatents(), run)
        figures = recipe.step(0, recipe.batch(0))
        moved = {name: value.detach().clone() for name, value in recipe.unet.named_parameters()}
        weights.append((float(figures["loss"]), moved["out.2.conv.weight"]))
    for loss, weight in weights[1:]:
        assert loss == pytest.approx(weights[0][0], rel=1e-5)
        # Adam's first step is lr * sign(gradient): rounding shows only where a gradient is nearly 0.
        close = (weight - weights[0][1]).abs() < 1e-4
        assert close.float().mean() > 0.99


def test_the_loss_on_the_velocity_is_what_the_configuration_says(run: Run) -> None:
    batch = None
    for name, measure in (("l1", torch.abs), ("huber", lambda d: torch.where(d.abs() < 1, d**2 / 2, d.abs() - 0.5))):
        recipe = DiffusionRecipe(CONFIG.model_copy(update={"loss": name}), FewLatents(), run)
        batch = recipe.batch(0)
        target = recipe.schedule.velocity(batch.latents, batch.noise, batch.timesteps)
        expected = measure(target).mean()  # an untrained network predicts 0
        assert float(recipe.step(0, batch)["loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_a_stopped_training_ends_in_the_weights_of_one_that_was_not(run: Run, tmp_path: Path) -> None:
    straight = fit(DiffusionRecipe(CONFIG, FewLatents(), run), _horizon(CONFIG), tmp_path / "a", run, "diffusion")
    looks = iter([False, False, False, True])
    stopping = dataclasses.replace(run, stop=lambda: next(looks))
    with pytest.raises(Stopped):
        fit(DiffusionRecipe(CONFIG, FewLatents(), run), _horizon(CONFIG), tmp_path / "b", stopping, "diffusion")
    resumed = fit(DiffusionRecipe(CONFIG, FewLatents(), run), _horizon(CONFIG), tmp_path / "b", run, "diffusion")
    (config_a, a), (config_b, b) = (load_model(folder, "medlord.diffusion") for folder in (straight, resumed))
    assert config_a == config_b
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns_a_cohort_of_one_pattern_and_samples_it(run: Run, tmp_path: Path) -> None:
    changes = {"steps": 100, "lr": 4e-3, "validate_every": 50, "selection": "last"}
    config = CONFIG.model_copy(update=changes)
    recipe = DiffusionRecipe(config, FewLatents(), run)
    untrained = recipe.validate(0)["loss"]
    folder = fit(recipe, _horizon(config), tmp_path, run, "diffusion")
    assert recipe.validate(100)["loss"] < 0.75 * untrained
    model = load_diffusion(folder, "cpu")
    pattern = noise((8, *SHAPE), "pattern").flatten()
    for steps in (20, 5):
        for latent in sample_latents(model.unet, model.schedule, [1, 2], SHAPE, steps, "cpu", "fp32"):
            together = torch.stack([latent.flatten(), pattern])
            assert float(torch.corrcoef(together)[0, 1]) > 0.6


def test_validation_repeats_itself_and_looks_at_the_averaged_weights(run: Run) -> None:
    recipe = DiffusionRecipe(CONFIG, FewLatents(), run)
    for step in range(3):
        recipe.step(step, recipe.batch(step))
    before = recipe.validate(3)
    assert recipe.validate(9) == before
    with torch.no_grad():
        for value in recipe.unet.parameters():
            value.zero_()
    assert recipe.validate(3) == before
    recipe.ema.shadow["out.2.conv.bias"] += 1
    assert recipe.validate(3) != before


def test_exported_weights_are_the_averaged_ones_with_all_that_sampling_needs(run: Run, tmp_path: Path) -> None:
    recipe = DiffusionRecipe(CONFIG, FewLatents(), run)
    recipe.step(0, recipe.batch(0))
    recipe.export(tmp_path)
    model = load_diffusion(tmp_path, "cpu", attention="math")
    assert (model.latent_scale, model.latent_shape, model.schedule.timesteps) == (2.5, SHAPE, 20)
    assert model.unet.config == NET.model_copy(update={"attention": "math"})
    assert not any(value.requires_grad for value in model.unet.parameters())
    for name, value in model.unet.named_parameters():
        assert torch.equal(value, recipe.ema.shadow[name])
    with pytest.raises(MissingError):
        load_diffusion(tmp_path / "elsewhere", "cpu")
    with pytest.raises(UserError, match=r"expected 'medlord\.controlnet'"):
        load_controlnet(tmp_path, "cpu")


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (FewLatents(channels=4), "8 given, the autoencoder's latents have 4"),
        (FewLatents(splits={"train": 3, "val": 0}), "the val split is empty"),
        (FewLatents(splits={"train": 0, "val": 1}), "the train split is empty"),
    ],
)
def test_latents_that_cannot_be_trained_on_are_refused(run: Run, latents: FewLatents, message: str) -> None:
    with pytest.raises(UserError, match=message):
        DiffusionRecipe(CONFIG, latents, run)


def test_a_batch_that_does_not_split_is_refused() -> None:
    with pytest.raises(ValidationError, match="batch = 4 is no multiple of micro_batch = 3"):
        DiffusionConfig(batch=4, micro_batch=3)


# ----------------------------------------------------------------------------------------------------------- sampling
@pytest.mark.parametrize("steps", [20, 6])
def test_a_sample_does_not_depend_on_its_batch(steps: int) -> None:
    model = _diffusion()
    together = sample_latents(model.unet, model.schedule, [5, 6, 7], SHAPE, steps, "cpu", "fp32")
    alone = [sample_latents(model.unet, model.schedule, [seed], SHAPE, steps, "cpu", "fp32")[0] for seed in (5, 6, 7)]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-5, rtol=0)
    assert float((together[0] - together[1]).abs().max()) > 0.1


def test_an_untrained_network_samples_by_the_schedule_alone() -> None:
    net, schedule = build_unet(NET), CosineSchedule(20)  # velocity 0: x_0 = sqrt(abar_t) x_t at every step
    expected = noise((8, *SHAPE), 11, "start")
    for t in reversed(range(20)):
        before = schedule.alphas_cumprod[t - 1] if t else 1.0
        now, beta = schedule.alphas_cumprod[t], schedule.betas[t]
        mean = (before * now) ** 0.5 * beta / (1 - now) + (1 - beta) ** 0.5 * (1 - before) / (1 - now)
        fresh = ((1 - before) / (1 - now) * beta) ** 0.5 * noise((8, *SHAPE), 11, "step", t)
        expected = mean * expected + fresh
    drawn = sample_latents(net, schedule, [11], SHAPE, 20, "cpu", "fp32")[0]
    torch.testing.assert_close(drawn, expected, atol=1e-6, rtol=1e-5)


def test_a_grid_or_a_count_that_cannot_be_sampled_is_refused() -> None:
    model = _diffusion()
    with pytest.raises(UserError, match="multiples of 2"):
        sample_latents(model.unet, model.schedule, [1], (4, 4, 3), 5, "cpu", "fp32")
    with pytest.raises(UserError, match="expected 1 to 20"):
        sample_latents(model.unet, model.schedule, [1], SHAPE, 21, "cpu", "fp32")
    with pytest.raises(ValueError, match="go together"):
        sample_latents(model.unet, model.schedule, [1], SHAPE, 5, "cpu", "fp32", condition=torch.zeros(1, 1, 4, 4, 4))


# -------------------------------------------------------------------------------------------------------- conditioning
CONTROL = ControlNetConfig(
    net=ControlUNetConfig(ratio=1.0, norm_num_groups=16, embedding_channels=(8, 16)),
    batch=2,
    steps=4,
    lr=2e-3,
    precision="fp32",
    validate_every=2,
    checkpoint_every=2,
)


def _control_recipe(run: Run, cohort: Halves | None = None, **changes: Any) -> ControlNetRecipe:
    config = CONTROL.model_copy(update=changes)
    return ControlNetRecipe(config, _diffusion(), FewLatents(), cohort or Halves(), 4, run)


def test_region_masks_gather_the_parts_of_composite_regions() -> None:
    cohort = Halves()
    labels = cohort.labels("x")
    assert labels is not None
    labels[0, 0, 0] = 0
    masks = region_masks(labels, cohort.label_names, cohort.protocol.condition_regions)
    assert masks.dtype == torch.uint8
    for mask, expected in zip(masks.numpy(), (labels > 0, labels == 1, labels == 3), strict=True):
        np.testing.assert_array_equal(mask, expected)


def test_a_region_that_the_labels_do_not_know_is_named() -> None:
    with pytest.raises(UserError, match=r"'spleen' is not in the label map \(it knows: aorta, lung_left, lung_right\)"):
        region_masks(np.zeros((2, 2, 2), np.uint8), Halves.label_names, ("aorta", "spleen"))


def test_the_whole_condition_is_dropped_as_often_as_stated(run: Run) -> None:
    recipe = _control_recipe(run, condition_dropout=0.3, batch=10)
    masks = torch.cat([recipe.batch(step).masks for step in range(20)])
    dropped = [not mask.any() for mask in masks]
    assert 0.2 < sum(dropped) / len(dropped) < 0.4  # 200 draws at 0.3: three deviations are 0.1
    full = region_masks(Halves().labels("x"), Halves.label_names, recipe.regions)  # type: ignore[arg-type]
    assert all(torch.equal(mask, full) for mask, gone in zip(masks, dropped, strict=True) if not gone)
    assert recipe.masks("val-0", None).any()


def test_training_the_controlnet_leaves_the_unet_alone_and_its_weights_steer_samples(run: Run, tmp_path: Path) -> None:
    recipe = _control_recipe(run)
    before = {name: value.clone() for name, value in recipe.model.unet.state_dict().items()}
    folder = fit(recipe, _horizon(CONTROL), tmp_path, run, "controlnet")
    assert all(torch.equal(value, before[name]) for name, value in recipe.model.unet.state_dict().items())
    control = load_controlnet(folder, "cpu")
    assert control.regions == ("lungs", "lung_left", "aorta")
    model = _diffusion()
    masks = region_masks(Halves().labels("x"), Halves.label_names, control.regions)  # type: ignore[arg-type]
    arguments = (model.unet, model.schedule, [1, 2], SHAPE, 20, "cpu", "fp32")
    plain = sample_latents(*arguments)  # type: ignore[arg-type]
    steered = sample_latents(*arguments, control.net, masks[None].expand(2, -1, -1, -1, -1))  # type: ignore[arg-type]
    alone = sample_latents(model.unet, model.schedule, [2], SHAPE, 20, "cpu", "fp32", control.net, masks[None])
    assert float((plain - steered).abs().max()) > 1e-3
    torch.testing.assert_close(alone[0], steered[1], atol=1e-5, rtol=0)


def test_a_stopped_controlnet_training_ends_in_the_weights_of_one_that_was_not(run: Run, tmp_path: Path) -> None:
    straight = fit(_control_recipe(run), _horizon(CONTROL), tmp_path / "a", run, "controlnet")
    looks = iter([False, True])
    stopping = dataclasses.replace(run, stop=lambda: next(looks))
    with pytest.raises(Stopped):
        fit(_control_recipe(run), _horizon(CONTROL), tmp_path / "b", stopping, "controlnet")
    resumed = fit(_control_recipe(run), _horizon(CONTROL), tmp_path / "b", run, "controlnet")
    (_, a), (_, b) = (load_model(folder, "medlord.controlnet") for folder in (straight, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_cohort_that_cannot_condition_is_refused(run: Run) -> None:
    with pytest.raises(UserError, match="no condition_regions"):
        _control_recipe(run, Halves(regions=()))
    unmasked = Halves()
    unmasked.labels = lambda case_id: None  # type: ignore[method-assign,assignment]
    with pytest.raises(UserError, match="case train-3: has no mask"):
        _control_recipe(run, unmasked).masks("train-3", None)
