"""Training and sampling of MAISI's latents: exact under interruption and batching, and that it learns what it is shown."""

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
from medlord_bench.generators.maisi.configs import ControlNetConfig, DiffusionConfig, UNetConfig
from medlord_bench.generators.maisi.control import ControlNetRecipe, load_controlnet, numbered
from medlord_bench.generators.maisi.diffusion import (
    Diffusion,
    DiffusionRecipe,
    load_diffusion,
    make_schedule,
    sample_latents,
)
from medlord_bench.generators.maisi.unet import bit_planes, build_unet
from medlord_bench.nn.diffusion.schedules import RectifiedFlow, ScaledLinearSchedule
from medlord_bench.nn.training import Horizon, fit
from medlord_bench.util.seeds import noise, torch_rng

NET = UNetConfig(
    channels=(16, 16),
    num_res_blocks=1,
    attention_levels=(False, True),
    num_head_channels=(0, 16),
    norm_num_groups=8,
)
SHAPE = (4, 4, 2)
MM = (0.7, 0.7, 2.0)
CONFIG = DiffusionConfig(
    net=NET,
    timesteps=20,
    batch=4,
    steps=6,
    lr=2e-3,
    lr_decay_steps=None,
    ema_decay=0.9,
    precision="fp32",
    validate_every=3,
    checkpoint_every=2,
)


class FewLatents:
    """Five training and two validation latents that are all the same pattern, with a little noise."""

    scale = 2.5
    spacing_of_a_sample = MM

    def __init__(self, splits: Mapping[str, int] | None = None) -> None:
        self.splits = splits or {"train": 5, "val": 2, "test": 0}

    def ids(self, split: Split) -> Sequence[str]:
        return [f"{split}-{i}" for i in range(self.splits[split])]

    def latent(self, case_id: str) -> torch.Tensor:
        shape = (4, *SHAPE)
        return noise(shape, "pattern") + 0.1 * noise(shape, case_id)

    def spacing(self, case_id: str) -> torch.Tensor:
        return torch.tensor([0.7, 0.7, 1.0 + len(case_id)])


class Halves:
    """A cohort whose masks are the left (1) and right (2) half of a 16 x 16 x 8 volume."""

    label_names = {1: "lung_left", 2: "lung_right", 3: "aorta"}

    def __init__(self, regions: tuple[str, ...] = ("lungs", "lung_left", "aorta"), has_masks: bool = True) -> None:
        self.has_masks = has_masks
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
        return labels if self.has_masks else None


def _horizon(config: Any) -> Horizon:
    return Horizon(config.steps, config.validate_every, config.checkpoint_every, config.selection)


def _recipe(run: Run, latents: FewLatents | None = None, **changes: Any) -> DiffusionRecipe:
    return DiffusionRecipe(CONFIG.model_copy(update=changes), latents or FewLatents(), 4, run)


def _diffusion(schedule: Any = "rflow") -> Diffusion:
    torch.manual_seed(3)
    unet = build_unet(CONFIG.model_copy(update={"schedule": schedule}), 4, "cpu").eval().requires_grad_(False)
    torch.nn.init.normal_(unet.out[2].conv.weight, std=0.05)  # zero at first, it would hide what is before it
    return Diffusion(unet, make_schedule(CONFIG.model_copy(update={"schedule": schedule})), 2.5, MM)


def _draw(model: Diffusion, seeds: Sequence[int], steps: int | None, *control: Any, **more: Any) -> torch.Tensor:
    return sample_latents(model, seeds, SHAPE, [MM] * len(seeds), steps, "cpu", "fp32", *control, **more)


# ------------------------------------------------------------------------------------------------------------ training
def test_a_name_makes_its_schedule() -> None:
    flow = make_schedule(CONFIG.model_copy(update={"schedule": "rflow", "reference_voxels": 7}))
    assert isinstance(flow, RectifiedFlow) and (flow.timesteps, flow.reference_voxels) == (20, 7)
    ddpm = make_schedule(CONFIG.model_copy(update={"schedule": "ddpm"}))
    assert isinstance(ddpm, ScaledLinearSchedule) and ddpm.timesteps == 20


def test_an_item_draws_its_time_and_then_its_noise(run: Run) -> None:
    batch, flow = _recipe(run).batch(5), make_schedule(CONFIG)
    for place in range(4):
        rng = torch_rng(run.seed, "diffusion", "item", 5 * 4 + place)
        assert torch.equal(batch.times[place], flow.draw_time(rng, 4 * 4 * 2))
        assert torch.equal(batch.noise[place], torch.randn((4, *SHAPE), generator=rng))


def test_the_network_is_told_each_cases_own_voxel_size(run: Run) -> None:
    batch = _recipe(run, batch=5).batch(0)
    assert [spacing.tolist() for spacing in batch.conditions[0]] == [pytest.approx([0.7, 0.7, 8.0])] * 5
    assert len(batch.conditions) == 1


@pytest.mark.parametrize("schedule", ["rflow", "ddpm"])
def test_the_loss_is_the_mean_distance_to_what_the_schedule_asks_for(run: Run, schedule: Any) -> None:
    recipe = _recipe(run, schedule=schedule)
    batch = recipe.batch(0)
    target = batch.latents - batch.noise if schedule == "rflow" else batch.noise
    # An untrained network predicts 0.
    assert float(recipe.step(0, batch)["loss"]) == pytest.approx(float(target.abs().mean()), rel=1e-5)


def test_the_learning_rate_falls_as_a_square_to_nothing() -> None:
    decaying = CONFIG.model_copy(update={"lr_decay_steps": 100})
    assert [decaying.lr_factor(step) for step in (0, 50, 90, 100, 500)] == pytest.approx([1, 0.25, 0.01, 0, 0])
    assert CONFIG.lr_factor(10**9) == 1


def test_a_stopped_training_ends_in_the_weights_of_one_that_was_not(run: Run, tmp_path: Path) -> None:
    straight = fit(_recipe(run), _horizon(CONFIG), tmp_path / "a", run, "diffusion")
    looks = iter([False, False, False, True])
    with pytest.raises(Stopped):
        stopping = dataclasses.replace(run, stop=lambda: next(looks))
        fit(_recipe(run), _horizon(CONFIG), tmp_path / "b", stopping, "diffusion")
    resumed = fit(_recipe(run), _horizon(CONFIG), tmp_path / "b", run, "diffusion")
    for name in ("model.json", "model.safetensors"):
        assert (straight / name).read_bytes() == (resumed / name).read_bytes()


def test_it_learns_a_cohort_of_one_pattern_and_samples_it(run: Run, tmp_path: Path) -> None:
    config = CONFIG.model_copy(
        update={"schedule": "rflow", "steps": 120, "lr": 4e-3, "validate_every": 120, "selection": "last"}
    )
    recipe = DiffusionRecipe(config, FewLatents(), 4, run)
    untrained = recipe.validate(0)["loss"]
    folder = fit(recipe, _horizon(config), tmp_path, run, "diffusion")
    assert recipe.validate(120)["loss"] < 0.8 * untrained
    pattern = noise((4, *SHAPE), "pattern").flatten()
    for latent in _draw(load_diffusion(folder, "cpu"), [1, 2], None):
        assert float(torch.corrcoef(torch.stack([latent.flatten(), pattern]))[0, 1]) > 0.6


def test_exported_weights_are_the_averaged_ones_with_all_that_sampling_needs(run: Run, tmp_path: Path) -> None:
    recipe = _recipe(run, schedule="ddpm", top_region="head")
    recipe.step(0, recipe.batch(0))
    recipe.export(tmp_path)
    model = load_diffusion(tmp_path, "cpu", attention="math")
    assert (model.latent_scale, model.spacing, model.schedule.timesteps) == (2.5, MM, 20)
    assert (model.unet.config.schedule, model.unet.config.top_region) == ("ddpm", "head")
    assert model.unet.config.net == NET.model_copy(update={"attention": "math"})
    for name, value in model.unet.named_parameters():
        assert torch.equal(value, recipe.ema.shadow[name]) and not value.requires_grad
    with pytest.raises(MissingError):
        load_diffusion(tmp_path / "elsewhere", "cpu")
    with pytest.raises(UserError, match=r"expected 'maisi\.controlnet'"):
        load_controlnet(tmp_path, "cpu")


def test_a_batch_that_does_not_split_is_refused() -> None:
    with pytest.raises(ValidationError, match="batch = 4 is not a multiple of micro_batch = 3"):
        DiffusionConfig(batch=4, micro_batch=3)


# ------------------------------------------------------------------------------------------------------------ sampling
@pytest.mark.parametrize(("schedule", "steps"), [("rflow", 6), ("ddpm", 20), ("ddpm", 6)])
def test_a_sample_does_not_depend_on_its_batch(schedule: str, steps: int) -> None:
    model = _diffusion(schedule)
    together = _draw(model, [5, 6, 7], steps)
    alone = [_draw(model, [seed], steps)[0] for seed in (5, 6, 7)]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-5, rtol=0)
    assert float((together[0] - together[1]).abs().max()) > 0.1


def test_an_untrained_flow_stays_at_its_noise() -> None:
    model = Diffusion(build_unet(CONFIG, 4, "cpu"), make_schedule(CONFIG), 1.0, None)  # it predicts 0
    assert torch.equal(_draw(model, [11], 5)[0], noise((4, *SHAPE), 11, "start"))


def test_sampling_looks_for_a_stop_between_steps() -> None:
    looks = iter([False, False, True])
    with pytest.raises(Stopped, match="stopped after 2 of 6 steps"):
        _draw(_diffusion(), [1], 6, stop=lambda: next(looks))


# -------------------------------------------------------------------------------------------------------- conditioning
CONTROL = ControlNetConfig(
    embedding_channels=(4, 8, 8),
    batch=2,
    steps=4,
    lr=2e-3,
    lr_decay_steps=None,
    precision="fp32",
    validate_every=2,
    checkpoint_every=2,
)


def _control_recipe(run: Run, cohort: Halves | None = None) -> ControlNetRecipe:
    return ControlNetRecipe(CONTROL, _diffusion(), FewLatents(), cohort or Halves(), (16, 16, 8), run)


def test_regions_are_numbered_in_the_protocols_order_and_the_later_one_counts(run: Run) -> None:
    labels = Halves().labels("x")
    assert labels is not None
    labels[0, 0, 0], labels[15, 0, 0] = 0, 3
    made = numbered(labels, Halves.label_names, {"lungs": 1, "lung_left": 2, "aorta": 115})
    expected = np.where(labels == 1, 2, 1)
    expected[0, 0, 0], expected[15, 0, 0] = 0, 115
    np.testing.assert_array_equal(made, expected)
    recipe = _control_recipe(run)
    assert recipe.regions == {"lungs": 1, "lung_left": 2, "aorta": 3}
    batch = recipe.batch(0)
    spacing, given = batch.conditions
    assert spacing.shape == (2, 3) and given.dtype == torch.uint8
    assert given.shape == (2, 16, 16, 8) and set(given.unique().tolist()) == {1, 2}


def test_a_region_that_the_labels_do_not_know_is_named() -> None:
    with pytest.raises(UserError, match=r"'spleen' is not in the label map \(it knows: aorta, lung_left, lung_right\)"):
        numbered(np.zeros((2, 2, 2), np.uint8), Halves.label_names, {"aorta": 1, "spleen": 2})


def test_training_the_controlnet_leaves_the_unet_alone_and_its_weights_steer_samples(run: Run, tmp_path: Path) -> None:
    recipe = _control_recipe(run)
    before = {name: value.clone() for name, value in recipe.unet.state_dict().items()}
    folder = fit(recipe, _horizon(CONTROL), tmp_path, run, "controlnet")
    assert all(torch.equal(value, before[name]) for name, value in recipe.unet.state_dict().items())
    control = load_controlnet(folder, "cpu")
    assert dict(control.regions) == {"lungs": 1, "lung_left": 2, "aorta": 3}
    labels = numbered(Halves().labels("x"), Halves.label_names, control.regions)  # type: ignore[arg-type]
    planes = [lambda: bit_planes(torch.from_numpy(labels)[None])]
    plain = _draw(_diffusion(), [1, 2], 6)
    steered = _draw(_diffusion(), [1, 2], 6, control.net, planes * 2)
    assert float((plain - steered).abs().max()) > 1e-3
    torch.testing.assert_close(_draw(_diffusion(), [2], 6, control.net, planes)[0], steered[1], atol=1e-5, rtol=0)


def test_a_stopped_controlnet_training_ends_in_the_weights_of_one_that_was_not(run: Run, tmp_path: Path) -> None:
    straight = fit(_control_recipe(run), _horizon(CONTROL), tmp_path / "a", run, "controlnet")
    looks = iter([False, False, True])
    with pytest.raises(Stopped):
        stopping = dataclasses.replace(run, stop=lambda: next(looks))
        fit(_control_recipe(run), _horizon(CONTROL), tmp_path / "b", stopping, "controlnet")
    resumed = fit(_control_recipe(run), _horizon(CONTROL), tmp_path / "b", run, "controlnet")
    assert (straight / "model.safetensors").read_bytes() == (resumed / "model.safetensors").read_bytes()


def test_conditioning_without_regions_or_masks_is_refused(run: Run) -> None:
    with pytest.raises(UserError, match="no condition_regions"):
        _control_recipe(run, Halves(regions=()))
    with pytest.raises(UserError, match="case train-0: has no mask"):
        _control_recipe(run, Halves(has_masks=False)).conditions("train-0", None)
