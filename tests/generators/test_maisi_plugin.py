"""MAISI as a plugin: presets hold what they say, grids are refused with the nearest, the foundation is never made up."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from medlord_bench.contracts import DataProtocol, Grid, Purpose, Run, Shape
from medlord_bench.contracts.validation import merged
from medlord_bench.engine.keys import decides
from medlord_bench.errors import MissingError, UserError
from medlord_bench.generators.maisi.autoencoder import Autoencoder, load_autoencoder
from medlord_bench.generators.maisi.configs import FOUNDATION_LICENCE, Foundation, MAISIConfig
from medlord_bench.generators.maisi.plugin import MAISI
from medlord_bench.generators.maisi.presets import PRESETS, TINY_NET, VARIANTS
from medlord_bench.util.hashing import file_sha256

PURPOSES: tuple[Purpose, ...] = ("sample", "sample-conditional", "reconstruct")
CONTESTANTS = [(preset, variant) for preset in PRESETS for variant in ("", *VARIANTS)]
CTA, PHANTOM = (512, 512, 256), (64, 64, 48)


def plugin(preset: str, *over: Mapping[str, Any]) -> MAISI:
    config: dict[str, Any] = dict(PRESETS[preset])
    for layer in over:
        config = merged(config, layer)
    return MAISI(MAISIConfig.model_validate(config))


def protocol(shape: Shape, **counts: int) -> DataProtocol:
    return DataProtocol(
        name="toy",
        grid=Grid(shape=shape),
        fit="crop-pad",
        split="",
        split_sha256="",
        counts={"train": 1, "val": 1, "test": 1} | counts,
        masks="none",
    )


# ------------------------------------------------------------------------------------------------------------- presets
@pytest.mark.parametrize(("preset", "variant"), CONTESTANTS)
def test_every_preset_takes_its_grid_and_its_stages_fit_together(preset: str, variant: str) -> None:
    generator = plugin(preset, VARIANTS.get(variant, {}))
    generator.check(protocol(PHANTOM if preset in ("tiny", "smoke") else CTA))
    stages = generator.stages()
    assert [stage.name for stage in stages] == ["autoencoder", "latents", "diffusion", "controlnet"]
    for stage in stages:
        assert not [path for path in decides(generator.config, stage) if path.endswith(".steps")], "training restarts"
        json.dumps(decides(generator.config, stage))  # it is hashed
    for purpose in PURPOSES:
        json.dumps(decides(generator.config, generator.dependencies(purpose)))
        assert set(generator.dependencies(purpose).stages) <= {stage.name for stage in stages}
    if variant == "untrained":
        assert [stage.steps for stage in stages] == [0, None, 0, 0]
    if variant == "foundation":
        assert stages[0].steps is None, "it is not trained"


def without_memory_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the result: the effective batch, not the parts it is computed in."""
    memory = {"micro_batch", "num_splits", "checkpointing"}
    return {
        name: without_memory_settings(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
        if name not in memory
    }


def test_24gb_is_the_papers_model_but_for_what_saves_memory() -> None:
    paper, fitted, full = (plugin(name).config.model_dump() for name in ("paper", "24gb", "24gb-full"))
    assert without_memory_settings(fitted) == without_memory_settings(paper) and fitted != paper
    assert {**full, "grid": (512, 512, 128)} == fitted and full["grid"] == CTA
    grid, how = plugin("24gb").native(Grid(shape=CTA, spacing=(0.4, 0.4, 0.5), hu_window=(-1000, 2000)))
    assert (grid.shape, how, grid.hu_window) == ((512, 512, 128), "resize", (-1000, 1000))
    assert grid.spacing == pytest.approx((0.4, 0.4, 1.0))


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"autoencoder": {"lr": 2e-3}}, {"autoencoder"}),
        ({"autoencoder": {"steps": 99}}, set()),
        ({"hu_window": (-900, 900)}, {"autoencoder"}),
        ({"grid": (32, 32, 32)}, {"autoencoder", "latents", "controlnet"}),
        ({"diffusion": {"reference_voxels": 100}}, {"diffusion"}),
        ({"controlnet": {"lr": 2e-3}}, {"controlnet"}),
        ({"sampling": {"steps": 2}}, set()),
    ],
)
def test_a_setting_changes_the_stages_that_it_decides_and_no_other(
    change: Mapping[str, Any], changed: set[str]
) -> None:
    before, after = (
        {stage.name: decides(generator.config, stage) for stage in generator.stages()}
        for generator in (plugin("smoke"), plugin("smoke", change))
    )
    assert {name for name in before if before[name] != after[name]} == changed


# ---------------------------------------------------------------------------------------------------------- bad input
def test_a_grid_that_the_levels_cannot_take_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(
        UserError, match=r"grid \(62, 64, 48\).*nearest grid is \(64, 64, 48\).*generator\.grid=64,64,48"
    ):
        plugin("tiny").check(protocol((62, 64, 48)))
    plugin("tiny", {"grid": (64, 64, 48)}).check(protocol((62, 64, 48)))


def test_a_patch_larger_than_the_grid_is_refused() -> None:
    with pytest.raises(UserError, match=r"autoencoder\.patch .*larger than MAISI's grid \(16, 16, 16\)"):
        plugin("tiny").check(protocol((16, 16, 16)))


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_cases_is_refused(split: str) -> None:
    with pytest.raises(UserError, match=f"no {split} case"):
        plugin("smoke").check(protocol(PHANTOM, **{split: 0}))


# ------------------------------------------------------------------------------------------------------ the foundation
NO_CASES: Any = SimpleNamespace(protocol=protocol((32, 32, 16)))  # no case is looked at


def test_a_foundation_that_is_not_there_ends_the_run_with_exit_3(bench: Any, tmp_path: Path) -> None:
    options = ("--dataset", "phantom", "--set", "dataset.shape=32,32,16", "--set", "dataset.n_train=2")
    places = ("--store", tmp_path / "store", "--weights-dir", tmp_path / "weights", "--offline")
    done = bench("run", "--generator", "maisi:foundation@smoke", *options, *places, "--no-memory-check")
    assert done.code == 3, done.err
    said = done.err.splitlines()[-1]
    assert "autoencoder_v1.pt" in said and "nvidia/NV-Generate-CT" in said and str(tmp_path / "weights") in said
    assert not list((tmp_path / "store").rglob("*.safetensors")), "no random weights in its place"


def foundation(tmp_path: Path, **state: Any) -> tuple[MAISI, Path]:
    """MAISI on a small published autoencoder, and where that lies."""
    small = {"foundation": {}, "autoencoder": {"net": {**TINY_NET, "channels": (4, 4, 8)}}}
    generator = plugin("smoke", small)
    published = Foundation()
    path = tmp_path / "weights" / published.repository / published.file
    path.parent.mkdir(parents=True)
    torch.manual_seed(1)
    torch.save(Autoencoder(generator.config.autoencoder.net).state_dict() | state, path)
    return generator, path


def test_the_foundation_is_loaded_as_it_is_and_its_licence_is_shown_and_recorded(
    tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    generator, path = foundation(tmp_path)
    offline = dataclasses.replace(run, weights_dir=tmp_path / "weights", offline=True)
    with caplog.at_level(logging.WARNING):
        folder = generator.train(generator.stages()[0], NO_CASES, {}, tmp_path / "out", offline)
    assert FOUNDATION_LICENCE in caplog.text
    described = json.loads((folder / "model.json").read_text())["config"]
    assert described["licence"] == FOUNDATION_LICENCE
    assert described["converted_from"]["sha256"] == file_sha256(path)
    assert described["converted_from"]["repository"] == "nvidia/NV-Generate-CT"
    loaded, window = load_autoencoder(folder, "cpu", "fp32")
    theirs = torch.load(path, weights_only=True)
    ours = loaded.state_dict()
    assert set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_foundation_of_another_architecture_is_refused(tmp_path: Path, run: Run) -> None:
    generator, path = foundation(tmp_path, extra=torch.zeros(1))
    offline = dataclasses.replace(run, weights_dir=tmp_path / "weights", offline=True)
    with pytest.raises(UserError, match="extra"):
        generator.train(generator.stages()[0], NO_CASES, {}, tmp_path / "out", offline)
    path.unlink()
    with pytest.raises(MissingError, match=r"autoencoder_v1\.pt"):
        generator.train(generator.stages()[0], NO_CASES, {}, tmp_path / "out", offline)
