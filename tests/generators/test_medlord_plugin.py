"""MedLoRD as a plugin: presets hold the paper's numbers, stages and keys fit together, and options do what they say."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medlord_bench.checks.contract.common import phantom
from medlord_bench.contracts import DataProtocol, Grid, Purpose, Request, Run, Volume
from medlord_bench.contracts.validation import merged
from medlord_bench.engine.keys import decides
from medlord_bench.engine.prepared import StoredCohort
from medlord_bench.errors import UserError
from medlord_bench.generators.medlord.configs import MedLoRDConfig
from medlord_bench.generators.medlord.plugin import MedLoRD
from medlord_bench.generators.medlord.presets import PRESETS, VARIANTS
from medlord_bench.util.progress import SilentProgress
from medlord_bench.volumes.arrays import load_state

# Codes forgotten fast enough to be moved onto data within six steps: else one code serves all, and hides what is before.
SPREAD = {"autoencoder": {"net": {"decay": 0.2}}}
PURPOSES: tuple[Purpose, ...] = ("sample", "sample-conditional", "reconstruct")
CONTESTANTS = [(preset, variant) for preset in PRESETS for variant in ("", *VARIANTS)]


def _config(preset: str, *over: Mapping[str, Any]) -> MedLoRDConfig:
    config: dict[str, Any] = dict(PRESETS[preset])
    for layer in over:
        config = merged(config, layer)
    return MedLoRDConfig.model_validate(config)


def _plugin(preset: str, *over: Mapping[str, Any]) -> MedLoRD:
    return MedLoRD(_config(preset, *over))


# ------------------------------------------------------------------------------------------------------------- presets
@pytest.mark.parametrize(("preset", "variant"), CONTESTANTS)
def test_stages_and_what_is_read_fit_together_in_every_preset(preset: str, variant: str) -> None:
    generator = _plugin(preset, VARIANTS.get(variant, {}))
    stages = generator.stages()
    names = [stage.name for stage in stages]
    assert names == ["autoencoder", "latents", "diffusion", "controlnet"]
    for place, stage in enumerate(stages):
        assert set(stage.needs) <= set(names[:place]), f"{stage.name} needs what is trained after it"
        assert not [path for path in decides(generator.config, stage) if path.endswith(".steps")], "training restarts"
        json.dumps(decides(generator.config, stage))  # it is hashed
    for purpose in PURPOSES:
        reads = generator.dependencies(purpose)
        assert set(reads.stages) <= set(names) and "latents" not in reads.stages
        json.dumps(decides(generator.config, reads))
    assert "controlnet" in generator.dependencies("sample-conditional").stages
    assert "controlnet" not in generator.dependencies("sample").stages
    assert generator.dependencies("reconstruct").stages == ("autoencoder",)
    if variant == "untrained":
        assert [stage.steps for stage in stages] == [0, None, 0, 0]


@pytest.mark.parametrize(("preset", "patch"), [("paper-pccta", (128, 128, 128)), ("paper-luna", (128, 128, 64))])
def test_the_papers_numbers_are_in_its_presets(preset: str, patch: tuple[int, int, int]) -> None:
    config = _config(preset)
    net = config.autoencoder.net
    assert (net.codes, net.dim) == (16_384, 8)
    assert config.autoencoder.patch == patch
    assert config.autoencoder.steps == 250_000
    assert config.diffusion.steps == config.controlnet.steps == 750_000
    assert config.diffusion.timesteps == 300
    assert config.diffusion.loss == config.controlnet.loss == "l1"
    assert config.controlnet.net.ratio == 0.5
    assert (config.autoencoder.flip, config.autoencoder.rotate) == (0, 0)  # no augmentation
    assert config.autoencoder.perceptual > 0 and config.autoencoder.adversarial > 0 and config.autoencoder.spectral > 0
    assert config.sampling.steps is None  # all 300, by DDPM
    assert config.pretrained is None


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value


def _differing(first: MedLoRDConfig, second: MedLoRDConfig) -> set[str]:
    a, b = dict(_flat(first.model_dump())), dict(_flat(second.model_dump()))
    return {name for name in {*a, *b} if a.get(name, "absent") != b.get(name, "absent")}


def test_24gb_differs_from_the_paper_in_memory_alone() -> None:
    """Any other field here would make the default of real data another model, or another training, than the paper's."""
    assert _differing(_config("24gb"), _config("paper-pccta")) == {
        "autoencoder.micro_batch",
        "autoencoder.net.checkpointing",
        "latents.tile",
        "diffusion.micro_batch",
        "diffusion.net.checkpointing",
        "sampling.tile",
    }
    assert _differing(_config("paper-luna"), _config("paper-pccta")) == {"autoencoder.patch"}


@pytest.mark.parametrize("preset", ["24gb", "paper-pccta", "paper-luna"])
def test_micro_batches_divide_the_effective_batch(preset: str) -> None:
    config = _config(preset)
    assert (config.autoencoder.batch, config.diffusion.batch, config.controlnet.batch) == (2, 4, 1)
    assert config.diffusion.batch % config.diffusion.parts_of == 0


def test_the_grids_of_the_paper_fit_the_networks_of_its_presets() -> None:
    for preset in ("paper-pccta", "paper-luna", "24gb", "released-luna"):
        config = _config(preset)
        sides = [side / config.autoencoder.net.factor for side in (512, 512, 256)]
        assert all(side % config.diffusion.net.divisor == 0 for side in sides)
        if preset != "released-luna":
            assert config.controlnet.net.downsampling == config.autoencoder.net.factor


# ---------------------------------------------------------------------------------------------------------------- keys
def _stage_configs(*over: Mapping[str, Any]) -> dict[str, Any]:
    generator = _plugin("smoke", *over)
    return {stage.name: decides(generator.config, stage) for stage in generator.stages()}


def _reads(purpose: Purpose, **over: Any) -> dict[str, Any]:
    generator = _plugin("smoke", over)
    return decides(generator.config, generator.dependencies(purpose))


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"autoencoder": {"lr_g": 3e-3}}, {"autoencoder"}),
        ({"autoencoder": {"steps": 99}}, set()),
        ({"latents": {"quantised": True}}, {"latents"}),
        ({"diffusion": {"batch": 8}}, {"diffusion"}),
        ({"diffusion": {"steps": 99}}, set()),
        ({"controlnet": {"condition_dropout": 0.2}}, {"controlnet"}),
        ({"sampling": {"steps": 2}}, set()),
        ({"pretrained": dict(PRESETS["released-luna"]["pretrained"])}, {"autoencoder", "diffusion", "controlnet"}),
    ],
)
def test_a_setting_changes_the_stages_that_it_decides_and_no_other(
    change: Mapping[str, Any], changed: set[str]
) -> None:
    before, after = _stage_configs(), _stage_configs(change)
    assert {name for name in before if before[name] != after[name]} == changed


def test_samples_depend_on_sampling_settings_but_not_on_tiles() -> None:
    plain = _reads("sample")
    assert _reads("sample", sampling={"tile": (16, 16, 16)}) == plain
    assert _reads("sample", sampling={"steps": 2}) != plain
    assert _reads("reconstruct", sampling={"precision": "bf16"}) != _reads("reconstruct")


# ------------------------------------------------------------------------------------------------------------ training
@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("medlord")
    return Run(device="cpu", seed=0, progress=SilentProgress(), log=logging.getLogger("test"), scratch=folder)


@pytest.fixture(scope="module")
def cohort(context: Run) -> StoredCohort:
    return phantom(context, context.scratch / "phantom")[0]


Trained = tuple[MedLoRD, dict[str, Path]]


def _trained(generator: MedLoRD, cohort: StoredCohort, context: Run, name: str) -> dict[str, Path]:
    weights: dict[str, Path] = {}
    for stage in generator.stages()[:3]:
        inputs = {need: weights[need] for need in stage.needs}
        weights[stage.name] = generator.train(stage, cohort, inputs, context.scratch / name / stage.name, context)
    return weights


@pytest.fixture(scope="module", params=[False, True], ids=["before quantisation", "after quantisation"])
def trained(request: pytest.FixtureRequest, cohort: StoredCohort, context: Run) -> Trained:
    generator = _plugin("smoke", SPREAD, {"latents": {"quantised": request.param}})
    return generator, _trained(generator, cohort, context, f"quantised-{request.param}")


def _sampled(generator: MedLoRD, weights: Mapping[str, Path], cohort: StoredCohort, run: Run) -> Sequence[Volume]:
    requests = [Request(i, 100 + i, cohort.protocol.grid) for i in range(2)]
    used = {stage: weights[stage] for stage in generator.dependencies("sample").stages}
    volumes = list(generator.sample(used, requests, run))
    assert all(isinstance(volume, Volume) for volume in volumes)
    return [volume for volume in volumes if isinstance(volume, Volume)]


def test_latents_are_codes_only_after_quantisation_and_both_train_and_sample(
    trained: Trained, cohort: StoredCohort, context: Run
) -> None:
    from medlord_bench.nn.checkpoints import load_model

    generator, weights = trained
    _, tensors = load_model(weights["autoencoder"], "medlord.autoencoder")
    codes = tensors["quantizer.quantizer.embedding.weight"].double()
    latent = load_state(weights["latents"] / f"{cohort.ids('train')[0]}.safetensors")["latent"]
    vectors = torch.from_numpy(latent).double().flatten(1).T
    distance = torch.cdist(vectors, codes, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1).values
    if generator.config.latents.quantised:
        assert float(distance.max()) < 1e-6
    else:
        assert float(distance.median()) > 1e-6
    first, second = _sampled(generator, weights, cohort, context)
    assert first.shape == second.shape == (32, 32, 16)
    assert not np.array_equal(first.hu, second.hu)


@pytest.fixture(scope="module")
def plain(cohort: StoredCohort, context: Run) -> Trained:
    """Trained once more, then its U-Net's last convolution is opened: zero at first, it would hide the sampler."""
    from safetensors.torch import load_file, save_file

    generator = _plugin("smoke", SPREAD)
    weights = _trained(generator, cohort, context, "plain")
    path = weights["diffusion"] / "model.safetensors"
    tensors = load_file(path)
    generator_of_numbers = torch.Generator().manual_seed(0)
    for name in ("out.2.conv.weight", "out.2.conv.bias"):
        tensors[name] = 0.05 * torch.randn(tensors[name].shape, generator=generator_of_numbers)
    save_file(tensors, path)
    return generator, weights


def test_all_steps_are_ddpm_and_fewer_are_ddim(
    plain: Trained, cohort: StoredCohort, context: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medlord_bench.nn.diffusion.schedules import CosineSchedule

    calls: list[str] = []
    for name in ("_ddpm_step", "_ddim_step"):
        step = getattr(CosineSchedule, name)

        def counted(self: Any, *arguments: Any, step: Any = step, name: str = name) -> Any:
            calls.append(name)
            return step(self, *arguments)

        monkeypatch.setattr(CosineSchedule, name, counted)
    _, weights = plain
    for steps, expected in ((None, "_ddpm_step"), (10, "_ddpm_step"), (4, "_ddim_step"), (9, "_ddim_step")):
        calls.clear()
        _sampled(_plugin("smoke", {"sampling": {"steps": steps}}), weights, cohort, context)
        assert calls == [expected] * 2 * (steps or 10), f"two samples, one by one, in {steps} steps"


def test_more_steps_than_the_schedule_has_are_refused(plain: Trained, cohort: StoredCohort, context: Run) -> None:
    with pytest.raises(UserError, match="11 given, expected 1 to 10"):
        _sampled(_plugin("smoke", {"sampling": {"steps": 11}}), plain[1], cohort, context)


def test_tiles_change_neither_samples_nor_reconstructions(plain: Trained, cohort: StoredCohort, context: Run) -> None:
    _, weights = plain
    whole, tiled = (_plugin("smoke", {"sampling": {"tile": tile}}) for tile in (None, (16, 16, 8)))
    pairs = list(zip(*(_sampled(g, weights, cohort, context) for g in (whole, tiled)), strict=True))
    real = [(case, cohort.volume(case)) for case in cohort.ids("test")[:2]]
    used = {"autoencoder": weights["autoencoder"]}
    pairs += list(zip(*(g.reconstruct(used, iter(real), context) for g in (whole, tiled)), strict=True))
    assert len(pairs) == 4
    for a, b in pairs:
        assert np.ptp(a.hu) > 0
        difference = np.abs(a.hu.astype(int) - b.hu.astype(int))
        assert difference.max() <= 1  # rounding to whole HU of floats that differ in their last digits


def test_tiles_change_no_latent(plain: Trained, cohort: StoredCohort, context: Run) -> None:
    _, weights = plain
    generator = _plugin("smoke", {"latents": {"tile": (16, 16, 8)}})
    stage = generator.stages()[1]
    inputs = {"autoencoder": weights["autoencoder"]}
    tiled = generator.train(stage, cohort, inputs, context.scratch / "tiled", context)
    for case in (*cohort.ids("train"), *cohort.ids("val")):
        a, b = (load_state(folder / f"{case}.safetensors")["latent"] for folder in (weights["latents"], tiled))
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_grid_that_the_autoencoder_cannot_halve_is_refused_with_the_nearest(
    plain: Trained, cohort: StoredCohort, context: Run
) -> None:
    generator, weights = plain
    grid = cohort.protocol.grid.model_copy(update={"shape": (30, 32, 16)})
    used = {stage: weights[stage] for stage in generator.dependencies("sample").stages}
    with pytest.raises(UserError, match=r"the nearest valid grid is \(32, 32, 16\)"):
        list(generator.sample(used, [Request(0, 1, grid)], context))


def protocol(shape: tuple[int, int, int], **counts: int) -> DataProtocol:
    return DataProtocol(
        name="toy",
        grid=Grid(shape=shape),
        fit="crop-pad",
        split="by hand",
        split_sha256="0" * 64,
        counts={"train": 2, "val": 1, "test": 1} | counts,
        masks="none",
    )


@pytest.mark.parametrize(
    ("preset", "data", "message"),
    [
        ("tiny", protocol((60, 64, 48)), r"multiples of 16; the nearest such grid is \(64, 64, 48\)"),
        ("24gb", protocol((512, 512, 240)), r"multiples of 32; the nearest such grid is \(512, 512, 256\)"),
        ("tiny", protocol((16, 64, 48)), r"autoencoder.patch .*larger than the grid \(16, 64, 48\)"),
        ("tiny", protocol((64, 64, 48), val=0), "no val case"),
    ],
)
def test_a_grid_or_split_it_cannot_take_is_refused_before_any_work(
    preset: str, data: DataProtocol, message: str
) -> None:
    config = MedLoRD.Config.model_validate(MedLoRD.presets[preset])
    with pytest.raises(UserError, match=message):
        MedLoRD(config).check(data)
    MedLoRD(config).check(protocol((512, 512, 256)))
