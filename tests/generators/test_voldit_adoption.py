"""Weights instead of training: files in the layout of the authors' code, and our own, on a phantom of 32x32x16."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from medlord_bench.checks.contract.common import phantom
from medlord_bench.contracts import Request, Run, Volume
from medlord_bench.contracts.validation import merged
from medlord_bench.engine.prepared import StoredCohort
from medlord_bench.errors import MissingError, UserError
from medlord_bench.generators.voldit.configs import VolDiTConfig
from medlord_bench.generators.voldit.plugin import VolDiT
from medlord_bench.generators.voldit.presets import SMOKE, VARIANTS

GRID = (4, 4, 2)  # tokens of 32x32x16: 1/4 by the autoencoder, 1/2 by the patch
HIDDEN, DEPTH, HEADS, PATCH = 32, 2, 2, 2
Shapes = dict[str, tuple[int, ...]]


@pytest.fixture(scope="module")
def keys() -> ModuleType:
    """`upstream_keys.py` beside this file."""
    spec = importlib.util.spec_from_file_location("upstream_keys", Path(__file__).with_name("upstream_keys.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _random(shapes: Shapes, seed: int) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {name: 0.1 * torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def dit_file(keys: ModuleType, seed: int = 1, **changes: Any) -> dict[str, Any]:
    """A checkpoint as the authors' trainer writes it: averaged are only the trained tensors, not the positions."""
    size = {"hidden": HIDDEN, "depth": DEPTH, "patch": PATCH, "latent": 8, "tokens": 32} | changes
    state = _random(keys.dit(**size), seed)
    state["pos_embed"] = torch.from_numpy(_positions(size["hidden"])).float()[None]
    shadow = {name: value + 1 for name, value in state.items() if name not in ("pos_embed",)}
    return {"epoch": 3, "best_loss": 0.1, "model": state, "optimizer": {}, "ema": {"decay": 0.9999, "shadow": shadow}}


def _positions(hidden: int) -> np.ndarray:
    """In float32, as the authors compute them."""
    third = -(-hidden // 6) * 2
    omega = (1 / 10000 ** (np.arange(third // 2, dtype=np.float32) / (third / 2))).astype(np.float32)
    rows = []
    for place in np.ndindex(*GRID):
        waves = [np.float32(coordinate) * omega for coordinate in place]
        rows.append(np.concatenate([part for wave in waves for part in (np.sin(wave), np.cos(wave))])[:hidden])
    return np.stack(rows)


def upstream(keys: ModuleType, folder: Path, tgca: int = 0) -> Path:
    """Small files of the authors' code: the autoencoder, the transformer, perhaps an adapter of `tgca` masks."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": _random(keys.vqgan((8, 8), codes=32, dim=8, res_layers=1), 0)}, folder / "vqgan_luna.pth")
    made = dit_file(keys)
    torch.save(made, folder / "dit_luna.pth")
    if tgca:
        own = _random(keys.tgca(masks=tgca, hidden=HIDDEN, depth=DEPTH, channels=(4, 8, 8, 8)), 5)
        inside = {f"base_model.{name}": value for name, value in made["model"].items()}
        torch.save({"model": {**inside, **own}, "ema": {"shadow": own}}, folder / "tgca_luna.pth")
    return folder


@pytest.fixture
def cohort(run: Run) -> StoredCohort:
    return phantom(run, run.scratch / "phantom")[0]


def adopted(
    cohort: StoredCohort, run: Run, source: Path | None, *over: Mapping[str, Any]
) -> tuple[VolDiT, dict[str, Path]]:
    """Every stage from `source`; without one, as the configuration says."""
    settings: dict[str, Any] = dict(SMOKE)
    for layer in over:
        settings = merged(settings, layer)
    generator = VolDiT(VolDiTConfig.model_validate(settings))
    weights: dict[str, Path] = {}
    for stage in generator.stages():
        if stage.conditional and "conditional" not in generator.capabilities:
            continue
        inputs, out = {need: weights[need] for need in stage.needs}, run.scratch / "out" / stage.name
        if source is None:
            weights[stage.name] = generator.train(stage, cohort, inputs, out, run)
        else:
            weights[stage.name] = generator.adopt(stage, source, cohort, inputs, out, run)
    return generator, weights


def described(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "model.json").read_text())["config"])


def sampled(generator: VolDiT, weights: Mapping[str, Path], cohort: StoredCohort, run: Run) -> Volume:
    request = Request(0, 7, cohort.protocol.grid, cohort.label_map(cohort.ids("test")[0]))
    (volume,) = generator.sample(weights, [request], run)
    assert isinstance(volume, Volume)
    return volume


# ------------------------------------------------------------------------------------------ the authors' published ones
def test_released_weights_come_from_the_offline_folder_with_their_averages_and_licence(
    keys: ModuleType, cohort: StoredCohort, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from medlord_bench.nn.checkpoints import load_model

    folder = upstream(keys, tmp_path / "weights" / "AICM-HD" / "voldit")
    at_hand = dataclasses.replace(run, weights_dir=tmp_path / "weights", offline=True)
    with caplog.at_level(logging.WARNING):
        generator, weights = adopted(cohort, at_hand, None, VARIANTS["released-luna"])
    assert "licence of AICM-HD/voldit: Apache-2.0" in caplog.text
    assert (folder / "dit_luna.pth.lock.json").exists()
    diffusion = described(weights["diffusion"])
    assert diffusion["net"] | {"hidden": HIDDEN, "depth": DEPTH, "heads": HEADS, "patch": PATCH} == diffusion["net"]
    assert diffusion["converted_from"]["part"] == "model, with ema.shadow over it"
    assert diffusion["assumed"] == {"timesteps": 300, "heads": HEADS}
    assert diffusion["latent_scale_is"] == "measured on the training latents"
    assert described(weights["autoencoder"])["hu_window"] == [-1000, 1000]
    raw = dit_file(keys)["model"]
    _, tensors = load_model(weights["diffusion"], "voldit.diffusion")
    assert set(raw) - set(tensors) == {"pos_embed", "y_embedder.embedding_table.weight"}
    assert all(torch.equal(value, raw[name] + 1) for name, value in tensors.items()), "averaged, not raw"
    assert sampled(generator, weights, cohort, run).shape == (32, 32, 16)


def test_offline_without_the_files_names_pattern_and_repository(
    keys: ModuleType, cohort: StoredCohort, run: Run, tmp_path: Path
) -> None:

    away = dataclasses.replace(run, weights_dir=tmp_path, offline=True)
    with pytest.raises(MissingError, match=r"\*vqgan\*\.pth.*AICM-HD/voldit"):
        adopted(cohort, away, None, VARIANTS["released-luna"])
    folder = upstream(keys, tmp_path / "AICM-HD" / "voldit")
    (folder / "dit_other.pth").write_bytes(b"")
    with pytest.raises(UserError, match="2 files match .*dit_luna.pth, dit_other.pth"):
        adopted(cohort, away, None, VARIANTS["released-luna"])


# ------------------------------------------------------------------------------------------------ the authors' adapter
def test_the_authors_adapter_is_read_with_their_norm(
    keys: ModuleType, cohort: StoredCohort, run: Run, tmp_path: Path
) -> None:
    masks = len(cohort.protocol.condition_regions)
    generator, weights = adopted(cohort, run, upstream(keys, tmp_path / "theirs", masks))
    control = described(weights["tgca"])
    assert control["net"]["control_norm"] == "upstream" and control["net"]["channels"] == [4, 8, 8, 8]
    assert control["assumed"]["regions"] == list(cohort.protocol.condition_regions)
    assert sampled(generator, weights, cohort, run).shape == (32, 32, 16)


def test_masks_of_more_regions_than_the_adapter_has_channels_are_refused_with_both_numbers(
    keys: ModuleType, cohort: StoredCohort, run: Run, tmp_path: Path
) -> None:
    masks = len(cohort.protocol.condition_regions)
    with pytest.raises(UserError, match=rf"reads 1 mask channels, the protocol phantom has {masks} condition regions"):
        adopted(cohort, run, upstream(keys, tmp_path / "theirs", tgca=1))


# ------------------------------------------------------------------------------------------------------ our own weights
def test_our_own_weights_give_the_same_volumes(cohort: StoredCohort, run: Run, tmp_path: Path) -> None:
    generator, weights = adopted(cohort, run, None)
    for stage in ("autoencoder", "diffusion", "tgca"):
        shutil.copytree(weights[stage], tmp_path / "ours" / stage)
    elsewhere = dataclasses.replace(run, scratch=tmp_path / "again")
    _, again = adopted(cohort, elsewhere, tmp_path / "ours")
    assert not list(again["latents"].glob("*.safetensors")), "the scale is known: nothing is encoded"
    first, second = (sampled(generator, one, cohort, run) for one in (weights, again))
    assert np.array_equal(first.hu, second.hu)


# --------------------------------------------------------------------------------------------------------- bad weights
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 3}, None),  # another depth is another model, which the tensors describe
        ({"patch": 4}, "32 tokens of 32 channels with patches of 4, this grid has 4 of 32"),
        ({"latent": 4}, "expects latents of 4 channels, the autoencoder's have 8"),
        ({"hidden": 48}, "hidden size 48 is none of the authors' 384, 768, 1152: heads are unknown"),
    ],
)
def test_a_checkpoint_of_another_size_or_patch_is_named(
    keys: ModuleType, cohort: StoredCohort, run: Run, tmp_path: Path, changes: dict[str, int], message: str | None
) -> None:
    source = upstream(keys, tmp_path / "theirs")
    torch.save(dit_file(keys, **changes), source / "dit_luna.pth")
    if message is None:
        _, weights = _without_adapter(cohort, run, source)
        assert described(weights["diffusion"])["net"]["depth"] == 3
        return
    with pytest.raises(UserError, match=message) as caught:
        _without_adapter(cohort, run, source)
    assert "dit_luna.pth" in str(caught.value) and "\n" not in str(caught.value)


def _without_adapter(cohort: StoredCohort, run: Run, source: Path) -> tuple[VolDiT, dict[str, Path]]:
    plain = StoredCohort(cohort.images, cohort.protocol.model_copy(update={"condition_regions": ()}), cohort.splits)
    generator = VolDiT(VolDiTConfig.model_validate(SMOKE))
    weights: dict[str, Path] = {}
    for stage in generator.stages()[:3]:
        inputs = {need: weights[need] for need in stage.needs}
        weights[stage.name] = generator.adopt(stage, source, plain, inputs, run.scratch / "out" / stage.name, run)
    return generator, weights


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"missing tensor 'blocks\.1\.attn\.qkv\.bias'"),
        ("surplus", "surplus tensor 'extra'"),
        ("misshapen", r"tensor 'blocks\.1\.attn\.qkv\.bias' is \(3,\), expected \(96,\)"),
        ("positions", "pos_embed are not the sines and cosines"),
        ("classes", "models with classes are not supported"),
        ("no embedder", r"missing tensor 'y_embedder\.embedding_table\.weight'"),
    ],
)
def test_loading_is_strict(
    keys: ModuleType, cohort: StoredCohort, run: Run, tmp_path: Path, change: str, message: str
) -> None:
    source, made = upstream(keys, tmp_path / "theirs"), dit_file(keys)
    name, labels = "blocks.1.attn.qkv.bias", "y_embedder.embedding_table.weight"
    for state in (made["model"], made["ema"]["shadow"]):
        if change == "missing":
            del state[name]
        elif change == "surplus":
            state["extra"] = torch.zeros(1)
        elif change == "misshapen":
            state[name] = torch.zeros(3)
        elif change == "classes":
            state[labels] = torch.zeros(5, HIDDEN)
        elif change == "no embedder":
            del state[labels]
        elif "pos_embed" in state:
            state["pos_embed"] = state["pos_embed"].roll(1, dims=1)
    torch.save(made, source / "dit_luna.pth")
    with pytest.raises(UserError, match=message):
        _without_adapter(cohort, run, source)


def test_a_truncated_file_and_an_empty_folder_are_one_line(
    keys: ModuleType, cohort: StoredCohort, run: Run, tmp_path: Path
) -> None:
    source = upstream(keys, tmp_path / "theirs")
    path = source / "dit_luna.pth"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="dit_luna.pth"):
        _without_adapter(cohort, run, source)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(MissingError, match=r"nothing for the stage autoencoder; expected .*\*vqgan\*\.pth"):
        _without_adapter(cohort, run, tmp_path / "nothing")


def test_another_grid_than_that_of_training_is_refused(cohort: StoredCohort, run: Run) -> None:
    generator, weights = adopted(cohort, run, None)
    grid = cohort.protocol.grid.model_copy(update={"shape": (32, 32, 32)})
    with pytest.raises(UserError, match=r"latents of \(8, 8, 8\) asked for, .* those of \(8, 8, 4\)"):
        list(
            generator.sample({name: weights[name] for name in ("autoencoder", "diffusion")}, [Request(0, 1, grid)], run)
        )
