"""The VQ-GAN's training: patches, exact resume, micro-batches, learning, weights on disk, bad input."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from medlord_bench.contracts import DataProtocol, Grid, Run, Split
from medlord_bench.errors import MissingError, Stopped, UserError
from medlord_bench.nn.intensity import unscale_hu
from medlord_bench.nn.training import Horizon, fit
from medlord_bench.nn.vqgan.config import AutoencoderConfig
from medlord_bench.nn.vqgan.network import VQGANConfig
from medlord_bench.nn.vqgan.training import AutoencoderRecipe, Patches, hu_window, load_autoencoder

TINY: dict[str, Any] = {
    "net": {"channels": (8, 12), "res_layers": 1, "codes": 64, "dim": 4},
    "patch": (16, 16, 16),
    "batch": 2,
    "micro_batch": 2,
    "steps": 6,
    "lr_g": 1e-3,
    "precision": "fp32",
    "perceptual": 0.0,
    "adversarial_warmup": 0,
    "discriminator_channels": 4,
    "discriminator_layers": 1,
    "validation_patches": 2,
}


def tiny(**changes: Any) -> AutoencoderConfig:
    return AutoencoderConfig.model_validate(TINY | changes)


class Balls:
    """A cohort of bright balls of random place and size in air; val is never train."""

    label_names: Mapping[int, str] = {}

    def __init__(self, val: int = 2) -> None:
        grid = Grid(shape=(24, 20, 28))
        self.protocol = DataProtocol(
            name="balls", grid=grid, fit="crop-pad", split="by id", split_sha256="0", counts={}, masks="none"
        )
        self.splits = {"train": ["a", "b", "c"], "val": ["d", "e"][:val], "test": []}

    def ids(self, split: Split) -> list[str]:
        return self.splits[split]

    def hu(self, case_id: str) -> np.ndarray:
        rng = np.random.default_rng(ord(case_id))
        centre, radius = rng.uniform(8, 16, 3), rng.uniform(5, 9)
        distance = np.linalg.norm(np.moveaxis(np.indices((24, 20, 28)), 0, -1) - centre, axis=-1)
        return np.where(distance < radius, 50, -1000).astype(np.int16) + rng.integers(0, 30, (24, 20, 28), np.int16)

    def labels(self, case_id: str) -> None:
        return None


def recipe(run: Run, **changes: Any) -> AutoencoderRecipe:
    return AutoencoderRecipe(tiny(**changes), Balls(), run)


def weights(part: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in part.state_dict().items()}


def same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_patch_is_cut_out_of_a_training_case(run: Run) -> None:
    batch = recipe(run).batch(0)
    assert (batch.shape, batch.dtype) == ((2, 1, 16, 16, 16), torch.float32)
    patch, not_finite = unscale_hu(batch[0, 0], (-1000, 2000))
    assert not_finite == 0
    volumes = [Balls().hu(name) for name in "abc"]
    found = [
        np.array_equal(volume[x : x + 16, y : y + 16, z : z + 16], patch)
        for volume in volumes
        for x in range(9)
        for y in range(5)
        for z in range(13)
    ]
    assert sum(found) == 1


def test_a_batch_depends_on_the_step_and_the_seed_alone(run: Run) -> None:
    first, second = recipe(run), recipe(run)
    second.batch(0)
    assert torch.equal(first.batch(3), second.batch(3))
    assert not torch.equal(first.batch(3), first.batch(4))
    assert not torch.equal(first.batch(3), recipe(dataclasses.replace(run, seed=1)).batch(3))


def test_augmentation_flips_along_y_and_turns(run: Run) -> None:
    plain, flipped, turned = recipe(run).batch(0), recipe(run, flip=1.0).batch(0), recipe(run, rotate=1.0).batch(0)
    assert torch.equal(flipped, plain.flip(3))
    assert turned.shape == plain.shape
    assert 1e-3 < (turned - plain).abs().mean() < 0.2


class Filled(Balls):
    """One value in every voxel."""

    def hu(self, case_id: str) -> Any:
        return np.full_like(super().hu(case_id), 500)


def test_a_rotation_pads_with_air_and_shows_what_lies_beside_the_patch(run: Run) -> None:
    data = Filled()
    low, high = data.protocol.grid.hu_window
    whole = tiny(patch=data.protocol.grid.shape, batch=1, micro_batch=1, rotate=1.0, rotate_degrees=10.0)
    rotated = AutoencoderRecipe(whole, data, run).batch(0)
    assert float(rotated.min()) == -1, "air, not the middle of the window"
    assert float(rotated.max()) == pytest.approx(2 * (500 - low) / (high - low) - 1, abs=1e-5)
    inner = Patches(data, "train", tiny())._rotated(data.hu("a"), [4, 2, 6], np.full(3, 3.0))
    np.testing.assert_allclose(inner, 500, rtol=1e-5)


def test_a_rotation_turns_about_the_patchs_centre(run: Run) -> None:
    whole = Balls()
    patches = Patches(whole, "train", tiny())
    hu, corner = whole.hu("a"), [4, 2, 6]
    box = tuple(slice(start, start + side) for start, side in zip(corner, TINY["patch"], strict=True))
    np.testing.assert_allclose(patches._rotated(hu, corner, np.zeros(3)), hu[box])
    quarter = patches._rotated(hu, corner, np.array([0.0, 0.0, 90.0]))
    expected = np.rot90(hu[box], -1, axes=(0, 1))  # source of (x, y) is (-y, x)
    np.testing.assert_allclose(quarter[1:-1, 1:-1], expected[1:-1, 1:-1], atol=0.5)


def test_a_killed_training_ends_in_the_same_weights(run: Run, tmp_path: Path) -> None:
    horizon = Horizon(steps=6, validate_every=2, checkpoint_every=3, selection="last")
    net = TINY["net"] | {"restart_below": 0.5}
    whole = fit(recipe(run, net=net), horizon, tmp_path / "whole", run, "autoencoder")
    polls = iter([False, False, False, True])
    halted = dataclasses.replace(run, stop=lambda: next(polls))
    with pytest.raises(Stopped):
        fit(recipe(run, net=net), horizon, tmp_path / "parts", halted, "autoencoder")
    parts = fit(recipe(run, net=net), horizon, tmp_path / "parts", run, "autoencoder")
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()
    curves = [(tmp_path / name / "curves.jsonl").read_text() for name in ("whole", "parts")]
    assert curves[0] == curves[1]


def test_micro_batches_train_as_the_whole_batch_does(run: Run) -> None:
    whole, parts = recipe(run), recipe(run, micro_batch=1)
    for step in range(2):
        for one in (whole, parts):
            figures = one.step(step, one.batch(step))
    assert set(figures) == {"l1", "commitment", "spectral", "adversarial", "discriminator", "perplexity"}
    for name in ("net", "adversary"):
        for key, value in weights(whole.stateful()[name]).items():
            torch.testing.assert_close(parts.stateful()[name].state_dict()[key], value, atol=2e-5, rtol=1e-3)


def test_the_generators_adversarial_loss_does_not_move_the_discriminator(run: Run) -> None:
    gentle, fierce = recipe(run, adversarial=0.005), recipe(run, adversarial=5.0)
    for one in (gentle, fierce):
        one.step(0, one.batch(0))
    assert same(weights(gentle.stateful()["adversary"]), weights(fierce.stateful()["adversary"]))
    assert not same(weights(gentle.net), weights(fierce.net))


def test_warm_up_starts_without_the_discriminators_word(run: Run) -> None:
    warming, without = recipe(run, adversarial=5.0, adversarial_warmup=10), recipe(run, adversarial=0.0)
    for one in (warming, without):
        one.step(0, one.batch(0))
    assert same(weights(warming.net), weights(without.net))
    assert "adversary" not in without.stateful()


def test_training_learns_to_reconstruct_cases_it_has_not_seen(run: Run) -> None:
    one = recipe(run, adversarial=0.0, net=TINY["net"] | {"restart_below": 0.05})
    before = one.validate(0)
    for step in range(200):
        one.step(step, one.batch(step))
    after = one.validate(200)
    assert after["loss"] < 0.4 * before["loss"]
    assert after["psnr"] > before["psnr"] + 7
    assert 8 < after["perplexity"] <= 64  # of 64 codes


def test_validation_repeats_and_changes_no_weight(run: Run) -> None:
    one = recipe(run)
    before = weights(one.net)
    first = one.validate(0)
    torch.manual_seed(1234)
    assert one.validate(5) == first
    assert same(before, weights(one.net))


def test_the_code_window_counts_every_latent_since_the_last_validation(run: Run) -> None:
    one = recipe(run)
    for step in range(3):
        one.step(step, one.batch(step))
    assert float(one.window.counts.sum()) == 3 * 2 * 4**3
    one.validate(3)
    assert float(one.window.counts.sum()) == 0


def test_saved_weights_hold_all_that_is_needed_to_use_them(run: Run, tmp_path: Path) -> None:
    one = recipe(run)
    one.step(0, one.batch(0))
    one.export(tmp_path / "weights")
    net = load_autoencoder(tmp_path / "weights", "cpu")
    assert net.config == VQGANConfig.model_validate(TINY["net"])
    assert hu_window(tmp_path / "weights") == (-1000, 2000)
    assert not net.training
    with torch.no_grad():
        assert torch.equal(net(one.batch(1))[0], one.net.eval()(one.batch(1))[0])


def test_damaged_or_absent_weights_are_named(run: Run, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="model.json"):
        load_autoencoder(tmp_path, "cpu")
    with pytest.raises(MissingError, match="model.json"):
        hu_window(tmp_path)
    recipe(run).export(tmp_path)
    description = tmp_path / "model.json"
    text = description.read_text()
    description.write_text(text.replace('"codes": 64', '"codes": 32'))
    with pytest.raises(UserError, match="expected"):
        load_autoencoder(tmp_path, "cpu")
    description.write_text(text.replace('"codes": 64', '"codes": "many"'))
    with pytest.raises(UserError, match="net.codes"):
        load_autoencoder(tmp_path, "cpu")
    description.write_text(text.replace("hu_window", "window"))
    with pytest.raises(UserError, match="hu_window"):
        hu_window(tmp_path)


def test_a_missing_perceptual_backbone_is_told_before_the_first_step(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDLORD_BENCH_WEIGHTS", str(run.scratch))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(run.scratch))
    with pytest.raises(MissingError, match="squeezenet1_1"):
        recipe(run, perceptual=0.1)


def test_a_patch_larger_than_the_grid_is_refused(run: Run) -> None:
    with pytest.raises(UserError, match=r"larger than the grid \(24, 20, 28\)"):
        recipe(run, patch=(16, 24, 16))


def test_a_cohort_without_validation_cases_is_refused(run: Run) -> None:
    with pytest.raises(MissingError, match="no val case"):
        AutoencoderRecipe(tiny(), Balls(val=0), run)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"patch": (16, 16, 18)}, "multiples of 4"),
        ({"batch": 3}, "not a multiple of micro_batch"),
        ({"discriminator_layers": 3}, "too small"),
    ],
)
def test_shapes_that_cannot_work_are_refused_by_the_config(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        tiny(**changes)
