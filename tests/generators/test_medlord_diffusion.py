"""Training and sampling of latents: exact under interruption and batching, and that it learns what it is shown."""

from __future__ import annotations

import dataclasses
import json
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
from medlord_bench.generators.medlord.conditioning import ControlNetRecipe, load_controlnet
from medlord_bench.generators.medlord.configs import UNETS, ControlNetConfig, ControlUNetConfig, UNetConfig
from medlord_bench.generators.medlord.diffusion import (
    Diffusion,
    DiffusionConfig,
    DiffusionRecipe,
    load_diffusion,
    sample_latents,
)
from medlord_bench.generators.medlord.unet import build_unet
from medlord_bench.nn.checkpoints import load_model
from medlord_bench.nn.diffusion.control import region_masks
from medlord_bench.nn.diffusion.schedules import CosineSchedule
from medlord_bench.nn.training import Horizon, fit
from medlord_bench.util.seeds import noise, torch_rng

NET = UNetConfig(**UNETS["smoke"])
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
@pytest.mark.parametrize("conditional", [False, True])
def test_both_stages_draw_an_items_time_then_its_dropout_then_its_noise(run: Run, conditional: bool) -> None:
    """The unconditional stage has no condition to drop and draws the number all the same: published trainings did."""
    recipe = _control_recipe(run) if conditional else DiffusionRecipe(CONFIG, FewLatents(), run)
    batch = recipe.batch(3)
    for place in range(recipe.config.batch):
        rng = torch_rng(run.seed, recipe.stage, "item", 3 * recipe.config.batch + place)
        assert int(batch.times[place]) == int(torch.randint(20, (), generator=rng))
        torch.rand((), generator=rng)
        assert torch.equal(batch.noise[place], torch.randn((8, *SHAPE), generator=rng))
    assert len(batch.conditions) == conditional


def test_the_learning_rate_decays_with_every_step() -> None:
    decaying = CONFIG.model_copy(update={"lr_decay": 0.5})
    assert [decaying.lr_factor(step) for step in (0, 1, 3)] == [1, 0.5, 0.125] and CONFIG.lr_factor(10**6) == 1


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


def test_exported_weights_are_the_averaged_ones_with_all_that_sampling_needs(run: Run, tmp_path: Path) -> None:
    recipe = DiffusionRecipe(CONFIG, FewLatents(), run)
    recipe.step(0, recipe.batch(0))
    recipe.export(tmp_path)
    model = load_diffusion(tmp_path, "cpu", attention="math")
    assert (model.latent_scale, model.latent_shape, model.schedule.timesteps) == (2.5, SHAPE, 20)
    assert (type(model.schedule), type(recipe.schedule)) == (CosineSchedule, CosineSchedule)
    assert model.unet.config == NET.model_copy(update={"attention": "math"})
    assert not any(value.requires_grad for value in model.unet.parameters())
    for name, value in model.unet.named_parameters():
        assert torch.equal(value, recipe.ema.shadow[name])
    with pytest.raises(MissingError):
        load_diffusion(tmp_path / "elsewhere", "cpu")
    with pytest.raises(UserError, match=r"expected 'medlord\.controlnet'"):
        load_controlnet(tmp_path, "cpu")


def test_latents_that_cannot_be_trained_on_are_refused(run: Run) -> None:
    with pytest.raises(UserError, match="is 8, the autoencoder's latents have 4"):
        DiffusionRecipe(CONFIG, FewLatents(channels=4), run)


def test_a_damaged_description_is_named(run: Run, tmp_path: Path) -> None:
    DiffusionRecipe(CONFIG, FewLatents(), run).export(tmp_path / "diffusion")
    _control_recipe(run).export(tmp_path / "controlnet")
    for stage, field, load in (("diffusion", "latent_shape", load_diffusion), ("controlnet", "unet", load_controlnet)):
        path = tmp_path / stage / "model.json"
        found = json.loads(path.read_text())
        del found["config"][field]
        path.write_text(json.dumps(found))
        with pytest.raises(UserError, match=rf"{stage}/model\.json: damaged \('{field}'\); restore it or train again"):
            load(tmp_path / stage, "cpu")


def test_a_batch_that_does_not_split_is_refused() -> None:
    with pytest.raises(ValidationError, match="batch = 4 is not a multiple of micro_batch = 3"):
        DiffusionConfig(batch=4, micro_batch=3)


# ----------------------------------------------------------------------------------------------------------- sampling
@pytest.mark.parametrize("steps", [20, 6])
def test_a_sample_does_not_depend_on_its_batch(steps: int) -> None:
    model = _diffusion()
    together = sample_latents(model.unet, model.schedule, [5, 6, 7], SHAPE, steps, "cpu", "fp32")
    alone = [sample_latents(model.unet, model.schedule, [seed], SHAPE, steps, "cpu", "fp32")[0] for seed in (5, 6, 7)]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-5, rtol=0)
    assert float((together[0] - together[1]).abs().max()) > 0.1


def test_a_grid_or_a_count_that_cannot_be_sampled_is_refused() -> None:
    model = _diffusion()
    with pytest.raises(UserError, match="multiples of 2"):
        sample_latents(model.unet, model.schedule, [1], (4, 4, 3), 5, "cpu", "fp32")
    with pytest.raises(UserError, match="expected 1 to 20"):
        sample_latents(model.unet, model.schedule, [1], SHAPE, 21, "cpu", "fp32")
    with pytest.raises(ValueError, match="expected both or neither"):
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
    assert masks.dtype == torch.bool
    for mask, expected in zip(masks.numpy(), (labels > 0, labels == 1, labels == 3), strict=True):
        np.testing.assert_array_equal(mask, expected)


def test_a_region_that_the_labels_do_not_know_is_named() -> None:
    with pytest.raises(UserError, match=r"'spleen' is not in the label map \(it knows: aorta, lung_left, lung_right\)"):
        region_masks(np.zeros((2, 2, 2), np.uint8), Halves.label_names, ("aorta", "spleen"))


def test_the_whole_condition_is_dropped_as_often_as_stated(run: Run) -> None:
    recipe = _control_recipe(run, condition_dropout=0.3, batch=10)
    masks = torch.cat([recipe.batch(step).conditions[0] for step in range(20)])
    dropped = [not mask.any() for mask in masks]
    assert 0.2 < sum(dropped) / len(dropped) < 0.4  # 200 draws at 0.3: three deviations are 0.1
    full = region_masks(Halves().labels("x"), Halves.label_names, recipe.regions)  # type: ignore[arg-type]
    assert all(torch.equal(mask, full) for mask, gone in zip(masks, dropped, strict=True) if not gone)
    assert recipe.conditions("val-0", None)[0].any()


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
        _control_recipe(run, unmasked).conditions("train-3", None)
