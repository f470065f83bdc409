"""HA-GAN as a plugin: stages, training step by step, adoption, sampling, and what memory it takes."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medlord_bench.checks.contract.common import phantom
from medlord_bench.contracts import DataProtocol, Failure, Grid, Request, Run, Volume
from medlord_bench.contracts.validation import merged
from medlord_bench.engine import resolve
from medlord_bench.engine.keys import decides
from medlord_bench.engine.memory_forecast import forecast
from medlord_bench.engine.prepared import StoredCohort
from medlord_bench.errors import MissingError, UserError
from medlord_bench.generators.hagan import training
from medlord_bench.generators.hagan.configs import HAGANConfig
from medlord_bench.generators.hagan.plugin import HAGAN
from medlord_bench.generators.hagan.presets import PRESETS, VARIANTS
from medlord_bench.generators.hagan.training import GANRecipe
from medlord_bench.generators.hagan.weights import load_gan, save_gan
from medlord_bench.memory.budget import usable_gib
from medlord_bench.nn import ranks
from medlord_bench.util.progress import SilentProgress
from medlord_bench.volumes.native_grid import NativeCohort


def plugin(*over: Mapping[str, Any], preset: str = "smoke") -> HAGAN:
    config: dict[str, Any] = dict(PRESETS[preset])
    for layer in over:
        config = merged(config, layer)
    return HAGAN(HAGANConfig.model_validate(config))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> StoredCohort:
    scratch = tmp_path_factory.mktemp("phantom")
    run = Run(device="cpu", seed=0, progress=SilentProgress(), log=logging.getLogger("test"), scratch=scratch)
    return phantom(run, scratch)[0]


@pytest.fixture
def recipe(cohort: StoredCohort, run: Run) -> GANRecipe:
    generator = plugin()
    data = NativeCohort(cohort, generator.native(cohort.protocol.grid)[0], "resize", run.scratch / "native")
    return GANRecipe(generator.config, data, run)


def state(recipe: GANRecipe, name: str) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in recipe.stateful()[name].state_dict().items()}


# ------------------------------------------------------------------------------------------------------------- presets
@pytest.mark.parametrize("preset", PRESETS)
def test_a_longer_training_continues(preset: str) -> None:
    short, long = plugin(preset=preset), plugin({"training": {"steps": 99_999}}, preset=preset)
    (stage,), (longer,) = short.stages(), long.stages()
    assert decides(short.config, stage) == decides(long.config, longer) and longer.steps == 99_999
    json.dumps(decides(short.config, stage))  # it is hashed


def test_the_authors_hyperparameters_are_in_24gb() -> None:
    config = plugin(preset="24gb").config
    assert (config.net.size, config.net.channels, config.net.latent) == (256, 512, 1024)
    training = config.training
    assert (training.batch, training.steps, training.lr, training.lr_d, training.betas) == (
        4,
        80_000,
        1e-4,
        4e-4,
        (0, 0.999),
    )
    assert plugin(VARIANTS["as-published"], preset="24gb").config.training.ema_decay == 0


def test_choosing_by_fid_asks_the_bench_to() -> None:
    (stage,) = plugin({"training": {"selection": "fid", "candidate_every": 3}}).stages()
    assert stage.choice is not None and stage.choice.candidates(6) == (3, 6)
    assert plugin().stages()[0].choice is None


def test_an_empty_split_is_an_error_before_any_work() -> None:
    data = DataProtocol(
        name="d", grid=Grid(shape=(8, 8, 8)), fit="resize", split="", split_sha256="", counts={"train": 1}, masks="none"
    )
    with pytest.raises(UserError, match="d: no val case"):
        plugin().check(data)


# ------------------------------------------------------------------------------------------------------------ training
def test_each_update_moves_its_own_network_alone(recipe: GANRecipe) -> None:
    names = ("discriminator", "generator", "slab_encoder", "latent_encoder")
    batch = recipe.batch(0)
    losses = {
        "discriminator": recipe._discriminator_loss,
        "generator": recipe._generator_loss,
        "slab_encoder": recipe._slab_loss,
        "latent_encoder": recipe._latent_loss,
    }
    for name in names:
        before = {other: state(recipe, other) for other in names}
        for other in names:
            recipe._networks()[other].requires_grad_(other == name)
        recipe._update(0, recipe.optimisers[name], losses[name], 0, batch)
        parameters = {other: dict(recipe._networks()[other].named_parameters()) for other in names}
        for other in names:
            moved = [k for k in parameters[other] if not torch.equal(before[other][k], parameters[other][k])]
            assert bool(moved) == (other == name), f"{name}'s update moved {other}"


def test_the_gradients_of_two_processes_sum_to_those_of_one(recipe: GANRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each ends with the spectral norms of one, so that all have the same discriminator in the next step."""
    gradients: dict[tuple[str, int], dict[str, torch.Tensor]] = {}
    norms: list[dict[str, torch.Tensor]] = []
    start = {k: v.clone() for k, v in recipe.discriminator.state_dict().items()}
    for number, process in enumerate((ranks.ALONE, ranks.Ranks(0, 2), ranks.Ranks(1, 2))):
        recipe.discriminator.load_state_dict(start)

        def keep(name: str, number: int) -> bool:
            net = recipe._networks()[name]
            gradients[name, number] = {k: p.grad.clone() for k, p in net.named_parameters() if p.grad is not None}
            net.zero_grad()
            return True

        for name, optimiser in recipe.optimisers.items():
            monkeypatch.setattr(optimiser, "step", lambda step, name=name, number=number: keep(name, number))
        monkeypatch.setattr(ranks, "current", lambda process=process: process)
        monkeypatch.setattr(training, "current", lambda process=process: process)
        monkeypatch.setattr(process, "total", lambda figures: figures)
        recipe.step(0, recipe.batch(0))
        norms.append({k: v.clone() for k, v in recipe.discriminator.state_dict().items()})
    for name in recipe._networks():
        one, *parts = (gradients[name, number] for number in range(3))
        assert one.keys() == parts[0].keys() == parts[1].keys() and one
        largest = max(float(value.abs().max()) for value in one.values())
        for k, value in one.items():
            torch.testing.assert_close(parts[0][k] + parts[1][k], value, rtol=1e-4, atol=1e-5 * largest)
    for other in norms[1:]:
        assert all(torch.equal(other[k], value) for k, value in norms[0].items())


def test_the_adversarial_losses_are_binary_cross_entropy(recipe: GANRecipe) -> None:
    batch, net = recipe.batch(0), recipe.config.net
    recipe.discriminator.eval()  # else the power iteration goes on between two calls
    with torch.no_grad():
        from medlord_bench.generators.hagan.images import small
        from medlord_bench.generators.hagan.networks import slab

        real = recipe.discriminator(slab(batch.images, batch.first, net.thickness), small(batch.images), batch.first)
        made = recipe.discriminator(*recipe.generator(batch.z[0], batch.first), batch.first)
        bce = torch.nn.functional.binary_cross_entropy_with_logits
        expected = bce(real, torch.ones_like(real)) + bce(made, torch.zeros_like(made))
        torch.testing.assert_close(recipe._discriminator_loss(batch), expected)
        made = recipe.discriminator(*recipe.generator(batch.z[1], batch.first), batch.first)
        torch.testing.assert_close(recipe._generator_loss(batch), bce(made, torch.ones_like(made)))


def test_a_batch_is_a_function_of_its_step_and_slabs_begin_where_features_do(recipe: GANRecipe) -> None:
    again, firsts = recipe.batch(3), set()
    for step in range(60):
        batch = recipe.batch(step)
        firsts.add(batch.first)
        assert batch.first % 4 == 0 and 0 <= batch.first <= 28
        if step == 3:
            assert torch.equal(batch.images, again.images) and torch.equal(batch.z, again.z)
    assert firsts == set(range(0, 29, 4))


def test_every_case_is_drawn_once_an_epoch_in_a_new_order(recipe: GANRecipe) -> None:
    n = len(recipe.cases["train"])
    first, second = ([recipe._case(epoch * n + i) for i in range(n)] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == sorted(recipe.cases["train"])
    assert any([recipe._case(epoch * n + i) for i in range(n)] != first for epoch in range(1, 6))


def test_micro_batches_give_the_same_gradient(recipe: GANRecipe) -> None:
    batch = recipe.batch(0)
    recipe.discriminator.eval()
    gradients = []
    for parts in ((batch,), (batch.part(0, 1, "cpu"), batch.part(1, 2, "cpu"))):
        recipe.generator.zero_grad(set_to_none=True)
        for part in parts:
            (recipe._generator_loss(part) / len(parts)).backward()
        gradients.append(
            torch.cat([p.grad.flatten() for p in recipe.generator.trunk.parameters() if p.grad is not None])
        )
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-4)


def test_the_exported_generator_is_the_average(recipe: GANRecipe, tmp_path: Path) -> None:
    for step in range(2):
        recipe.step(step, recipe.batch(step))
    recipe.export(tmp_path / "w")
    trained = load_gan(tmp_path / "w", "cpu")
    for name, value in trained.generator.named_parameters():
        torch.testing.assert_close(value, recipe.ema.shadow[name], atol=0, rtol=0)
    live = dict(recipe.generator.named_parameters())
    assert any(not torch.equal(value, live[name]) for name, value in trained.generator.named_parameters())
    assert trained.hu_window == recipe.window and trained.encoders is not None


# ------------------------------------------------------------------------------------------- sampling and reconstructing
@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that no training made, large enough to show an image."""
    from medlord_bench.generators.hagan.networks import Generator, LatentEncoder, SlabEncoder

    torch.manual_seed(1)
    net, folder = plugin().config.net, tmp_path_factory.mktemp("hagan")
    parts: dict[Any, Any] = {
        "generator": Generator(net).state_dict(),
        "slab_encoder": SlabEncoder(net).state_dict(),
        "latent_encoder": LatentEncoder(net).state_dict(),
    }
    save_gan(folder / "gan", net, (-1000, 1000), parts, {})
    return folder / "gan"


def test_a_sample_is_resized_from_the_cube_to_the_grid_and_within_the_window(weights: Path, run: Run) -> None:
    grid = Grid(shape=(40, 24, 20), spacing=(2.0, 2.0, 3.0))
    requests = [Request(index=i, seed=100 + i, grid=grid) for i in range(2)]
    first, second = plugin().sample({"gan": weights}, requests, run)
    assert isinstance(first, Volume) and isinstance(second, Volume)
    assert first.shape == grid.shape and first.spacing == (2.0, 2.0, 3.0)
    assert first.hu.min() >= -1000 and first.hu.max() <= 1000
    assert (first.hu != second.hu).any()
    (alone,) = plugin().sample({"gan": weights}, requests[1:], run)
    assert isinstance(alone, Volume) and (alone.hu == second.hu).all()


def test_a_volume_that_is_not_finite_is_a_failure(weights: Path, run: Run, tmp_path: Path) -> None:
    trained = load_gan(weights, "cpu")
    broken = {name: value.clone() for name, value in trained.generator.state_dict().items()}
    broken["high.image.bias"].fill_(float("nan"))
    save_gan(tmp_path / "gan", trained.generator.config, trained.hu_window, {"generator": broken}, {})
    (made,) = plugin().sample({"gan": tmp_path / "gan"}, [Request(0, 1, Grid(shape=(32, 32, 32)))], run)
    assert isinstance(made, Failure) and "not finite" in made.reason


def test_a_generator_without_encoders_counts_its_reconstructions_as_failed(
    weights: Path, run: Run, tmp_path: Path
) -> None:
    trained = load_gan(weights, "cpu")
    parts: dict[Any, Any] = {"generator": trained.generator.state_dict()}
    save_gan(tmp_path / "gan", trained.generator.config, trained.hu_window, parts, {})
    given = Volume(np.zeros((32, 32, 32), np.int16), np.eye(4))
    (made,) = plugin().reconstruct({"gan": tmp_path / "gan"}, [("a", given)], run)
    assert isinstance(made, Failure) and "without HA-GAN's encoders" in made.reason


def test_training_teaches_the_slab_encoder_to_give_slabs_back(recipe: GANRecipe) -> None:
    batch = recipe.batch(0)
    start = recipe._slab_loss(batch).item()
    for step in range(30):
        recipe.slab_encoder.requires_grad_(True)
        recipe._update(step, recipe.optimisers["slab_encoder"], recipe._slab_loss, 0, batch)
    assert recipe._slab_loss(batch).item() < 0.9 * start


# ------------------------------------------------------------------------------------------------------------ adoption
def _authors(folder: Path, weights: Path, iteration: int, *parts: str) -> Path:
    """`weights` in the authors' layout."""
    from medlord_bench.generators.hagan.networks import Generator

    trained = load_gan(weights, "cpu")
    assert trained.encoders is not None and isinstance(trained.generator, Generator)
    layers = {"trunk.project": "fc1", "high.unit.0": "tp_conv6", "high.unit.1": "bn6", "high.image": "tp_conv7"}
    layers |= {f"trunk.units.{i}.{j}": f"{name}{i + 1}" for i in range(5) for j, name in enumerate(("tp_conv", "bn"))}
    layers |= {
        f"low.units.{i}.{j}": f"sub_G.{name}{i + 1}" for i in range(2) for j, name in enumerate(("tp_conv", "bn"))
    }
    layers["low.image"] = "sub_G.tp_conv3"
    slabs = {f"units.{i}.{j}": f"{name}{i + 1}" for i in range(3) for j, name in enumerate(("conv", "bn"))}
    latent = {"units.0.0": "conv4", "units.0.1": "bn4", "vector": "conv5"}
    named = {
        "G": (trained.generator, layers),
        "E": (trained.encoders[0], slabs),
        "Sub_E": (trained.encoders[1], latent),
    }
    folder.mkdir(exist_ok=True)
    for part in parts:
        net, names = named[part]
        renamed = {}
        for name, value in net.state_dict().items():
            layer, _, kind = name.rpartition(".")
            renamed[f"module.{names[layer]}.{kind}"] = value
        torch.save({"model": renamed, "optimizer": {}}, folder / f"{part}_iter{iteration}.pth")
    return folder


def test_the_authors_generator_alone_is_adopted_and_samples(
    weights: Path, run: Run, cohort: StoredCohort, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = _authors(tmp_path / "theirs", weights, 500, "G")
    generator = plugin()
    (stage,) = generator.stages()
    adopted = generator.adopt(stage, folder, cohort, {}, tmp_path / "out", run)
    found = json.loads((adopted / "model.json").read_text())["config"]
    assert found["hu_window"] == [-1024, 600] and found["assumed"]["hu_window"] == [-1024, 600]
    assert (
        found["converted_from"]["generator"]["file"] == "G_iter500.pth"
        and len(found["converted_from"]["generator"]["sha256"]) == 64
    )
    assert "assumed" in caplog.text
    (made,) = generator.sample({"gan": adopted}, [Request(0, 5, Grid(shape=(32, 32, 32)))], run)
    (own,) = generator.sample({"gan": weights}, [Request(0, 5, Grid(shape=(32, 32, 32)))], run)
    assert isinstance(made, Volume) and isinstance(own, Volume)
    ours = (own.hu + 1000) / 2000  # the same network through another window
    np.testing.assert_allclose((made.hu + 1024) / 1624, ours, atol=1e-3)


def test_our_own_weights_are_adopted(weights: Path, run: Run, cohort: StoredCohort, tmp_path: Path) -> None:
    generator = plugin()
    (stage,) = generator.stages()
    adopted = generator.adopt(stage, weights.parent, cohort, {}, tmp_path / "out", run)
    assert (adopted / "model.safetensors").read_bytes() == (weights / "model.safetensors").read_bytes()


def test_what_cannot_be_adopted_says_so(weights: Path, run: Run, cohort: StoredCohort, tmp_path: Path) -> None:
    generator = plugin()
    (stage,) = generator.stages()

    def adopt(source: Path) -> None:
        generator.adopt(stage, source, cohort, {}, tmp_path / "out", run)

    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingError, match=r"nothing for HA-GAN; expected .*G_iter"):
        adopt(tmp_path / "empty")
    with pytest.raises(MissingError, match=r"Sub_E_iter\*.pth is missing"):
        adopt(_authors(tmp_path / "half", weights, 1, "G", "E"))
    _authors(tmp_path / "mixed", weights, 1, "G", "E")
    with pytest.raises(UserError, match="different iterations"):
        adopt(_authors(tmp_path / "mixed", weights, 2, "Sub_E"))
    folder = _authors(tmp_path / "wrong", weights, 1, "G")
    tensors = torch.load(folder / "G_iter1.pth", weights_only=True)
    del tensors["model"]["module.bn3.bias"]
    torch.save(tensors, folder / "G_iter1.pth")
    with pytest.raises(UserError, match=r"G_iter1.pth: missing tensor 'trunk.units.2.1.bias'"):
        adopt(folder)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_damaged_weights_are_named(weights: Path, tmp_path: Path, name: str) -> None:
    import shutil

    shutil.copytree(weights, tmp_path / "gan")
    (tmp_path / "gan" / name).write_text("{")
    with pytest.raises(UserError, match=name):
        load_gan(tmp_path / "gan", "cpu")


# -------------------------------------------------------------------------------------------------------------- memory
def test_every_stage_of_24gb_fits() -> None:
    data = DataProtocol(
        name="any",
        grid=Grid(shape=(512, 512, 256)),
        fit="crop-pad",
        split="",
        split_sha256="",
        counts={"train": 1, "val": 1, "test": 1},
        masks="none",
    )
    told = list(forecast(resolve.contestant("hagan@24gb", None, {}), data, 24.0))
    assert [one.name for one in told] == ["train GAN", "sample", "reconstruct"]
    for one in told:
        assert one.need is not None, one.reason
        assert one.need.total < usable_gib(24.0)


def test_predicted_peaks_agree_with_the_prototypes() -> None:
    """5.9 GiB in training with a batch of 4 and 2.5 in sampling, at 256 cubed in float32: computed before this code was
    written, with another tracker, on the authors' networks."""
    data = DataProtocol(
        name="any",
        grid=Grid(shape=(256, 256, 256)),
        fit="resize",
        split="",
        split_sha256="",
        counts={"train": 1, "val": 1, "test": 1},
        masks="none",
    )
    train, sample, _ = forecast(resolve.contestant("hagan@24gb", None, {"hagan.training.ema_decay": 0.0}), data, None)
    assert train.need is not None and sample.need is not None
    assert train.need.allocated == pytest.approx(5.9, rel=0.1)
    assert sample.need.allocated == pytest.approx(2.5, rel=0.02)


def test_memory_options_are_smaller_parts_first() -> None:
    offered = [dict(option.sets) for option in plugin(preset="24gb").memory_options("gan")]
    assert offered[:2] == [{"training.micro_batch": 2}, {"training.micro_batch": 1}]
