"""Weights instead of training: the authors' files and our own, through the command line, on a phantom of 32x32x16."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from medlord_bench.checks.contract.common import phantom
from medlord_bench.cli import main
from medlord_bench.contracts import Request, Run
from medlord_bench.contracts.regions import CARDIAC
from medlord_bench.engine.prepared import StoredCohort
from medlord_bench.errors import MissingError, UserError
from medlord_bench.generators.medlord.adoption import UPSTREAM_REGIONS, find_weights
from medlord_bench.generators.medlord.configs import MedLoRDConfig
from medlord_bench.generators.medlord.plugin import MedLoRD
from medlord_bench.volumes.arrays import load_state

PHANTOM = ["--set", "dataset.shape=32,32,16", "--set", "dataset.n_train=2", "--set", "dataset.n_val=1"]
PHANTOM += ["--set", "dataset.n_test=1", "--metric", "reconstruction", "--no-report", "--dataset", "phantom"]
FEW = ["--samples", "2", "--set", "generator.sampling.steps=3", "--set", "generator.sampling.precision=fp32"]
UNET: dict[str, Any] = {"channels": (64, 128), "attends": (False, True), "res_blocks": 1}
CONTROL = {"unet_channels": (64, 128), "ratio": 0.5, "attends": (False, True), "res_blocks": 1, "embedding": (8, 16)}
Bench = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def keys() -> ModuleType:
    """`upstream_keys.py` beside this file."""
    spec = importlib.util.spec_from_file_location("upstream_keys", Path(__file__).with_name("upstream_keys.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Bench]:
    """``medlord-bench run ...`` in this process: its exit code and what it said."""
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    logger = logging.getLogger("medlord_bench")
    before = (logger.handlers, logger.propagate, logger.level)
    monkeypatch.delenv("MEDLORD_BENCH_WEIGHTS", raising=False)

    def run(*arguments: str, store: str = "store") -> tuple[int, str]:
        place = ["--store", str(tmp_path / store), "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", ["medlord-bench", "run", *arguments, *PHANTOM, *place])
        try:
            main()
        except SystemExit as done:
            return int(done.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    yield run
    for number, handler in signals.items():
        signal.signal(number, handler)
    logger.handlers, logger.propagate, logger.level = before


def _random(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {name: 0.1 * torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def _trainer(raw: dict[str, torch.Tensor], shadow: dict[str, torch.Tensor]) -> dict[str, Any]:
    """A checkpoint as the authors' diffusion trainers write it."""
    ema = {"decay": 0.999, "shadow": shadow}
    return {"epoch": 3, "best_loss": 0.1, "model": raw, "optimizer": {"state": {}}, "lr_scheduler": None, "ema": ema}


def _upstream(keys: ModuleType, folder: Path, controlnet: bool = False, factor: int = 4) -> Path:
    """Small files of the authors' code, random weights: the autoencoder, the U-Net, and perhaps a ControlNet."""
    folder.mkdir(parents=True, exist_ok=True)
    widths = (8,) * {4: 2, 8: 3}[factor]
    state = _random(keys.vqgan(widths, codes=32, dim=8, res_layers=1), 0)
    stage1 = {"epoch": 1, "best_loss": 0.2, "model": state, "discriminator": {}, "optimizer_g": {}, "optimizer_d": {}}
    torch.save(stage1, folder / "vqgan_luna_ds8.pth")
    shapes = keys.unet(**UNET)
    torch.save(_trainer(_random(shapes, 1), _random(shapes, 2)), folder / "ldm_luna_ds8.pth")
    if controlnet:
        shapes = keys.controlnet(**CONTROL, masks=6, with_conditioning=True)
        torch.save(_trainer(_random(shapes, 3), _random(shapes, 4)), folder / "controlnet_pccta.pth")
    return folder


def _weights_of(store: Path, stage: str) -> dict[str, Any]:
    """The "config" of the one published `model.json` of a stage."""
    found = [json.loads(path.read_text()) for path in store.glob("objects/weights/*/items/weights/model.json")]
    (config,) = [model["config"] for model in found if model["kind"] == f"medlord.{stage}"]
    return dict(config)


def _samples(store: Path, kind: str = "samples") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.glob(f"objects/{kind}/*/items/*.nii.gz")}


# ------------------------------------------------------------------------------------------- the authors' published ones
def test_released_weights_sample_from_an_offline_folder(keys: ModuleType, bench: Bench, tmp_path: Path) -> None:
    _upstream(keys, tmp_path / "weights" / "AICM-HD" / "medlord", factor=8)
    released = ["--generator", "medlord@released-luna", "--no-conditional", "--offline", *FEW]
    code, said = bench(*released, "--weights-dir", str(tmp_path / "weights"))
    assert code == 0, said
    store = tmp_path / "store"
    assert len(_samples(store)) == 2
    assert (tmp_path / "weights" / "AICM-HD" / "medlord" / "ldm_luna_ds8.pth.lock.json").exists()

    autoencoder, diffusion = _weights_of(store, "autoencoder"), _weights_of(store, "diffusion")
    assert autoencoder["net"]["channels"] == [8, 8, 8] and autoencoder["net"]["codes"] == 32
    assert autoencoder["converted_from"]["part"] == "model"
    assert autoencoder["assumed"] == {"hu_window": [-1000, 1000]}
    assert diffusion["net"]["channels"] == [64, 128] and diffusion["net"]["attention_levels"] == [False, True]
    assert diffusion["converted_from"]["file"] == "ldm_luna_ds8.pth"
    assert diffusion["converted_from"]["part"] == "ema.shadow"
    assert diffusion["assumed"] == {"timesteps": 300, "num_head_channels": [0, 32], "norm_num_groups": 32}
    assert diffusion["latent_scale_is"] == "measured on the training latents"
    for told in ("diffusion: converted from", "timesteps 300", "num_head_channels [0, 32]", "norm_num_groups 32"):
        assert told in said


def test_the_measured_scale_brings_the_users_latents_to_unit_deviation(
    keys: ModuleType, bench: Bench, tmp_path: Path
) -> None:
    weights = _upstream(keys, tmp_path / "theirs")
    code, said = bench("--generator", "medlord@smoke", "--no-conditional", "--weights", str(weights), *FEW)
    assert code == 0, said
    latents = [
        torch.from_numpy(load_state(path)["latent"])
        for path in sorted((tmp_path / "store").glob("objects/weights/*/items/weights/phantom-*.safetensors"))
    ]
    assert len(latents) == 3
    train = torch.stack(latents[:2]).double()
    scaled = train * _weights_of(tmp_path / "store", "diffusion")["latent_scale"]
    assert float(scaled.std(correction=0)) == pytest.approx(1, rel=1e-6)


def test_a_given_scale_is_taken_and_nothing_is_encoded(keys: ModuleType, bench: Bench, tmp_path: Path) -> None:
    weights = _upstream(keys, tmp_path / "theirs")
    given = ["--set", "generator.latents.scale=1.11"]
    code, said = bench("--generator", "medlord@smoke", "--no-conditional", "--weights", str(weights), *FEW, *given)
    assert code == 0, said
    diffusion = _weights_of(tmp_path / "store", "diffusion")
    assert (diffusion["latent_scale"], diffusion["latent_scale_is"]) == (1.11, "given")
    assert "encode latents" not in said


def test_offline_without_the_file_names_file_and_repository(bench: Bench, tmp_path: Path) -> None:
    released = ["--generator", "medlord@released-luna", "--no-conditional", "--offline", *FEW]
    code, said = bench(*released, "--weights-dir", str(tmp_path / "empty"))
    (error,) = [line for line in said.splitlines() if line.startswith("Error")]
    assert code == 3
    for told in ("vqgan_luna_ds8.pth", "AICM-HD/medlord", "--offline", "--weights-dir", str(tmp_path / "empty")):
        assert told in error


def test_released_weights_without_a_controlnet_say_no_conditional(
    keys: ModuleType, bench: Bench, tmp_path: Path
) -> None:
    _upstream(keys, tmp_path / "weights" / "AICM-HD" / "medlord")
    code, said = bench(
        "--generator", "medlord@released-luna", "--offline", "--weights-dir", str(tmp_path / "weights"), *FEW
    )
    assert code == 3
    assert "AICM-HD/medlord" in said and "--no-conditional" in said


# ------------------------------------------------------------------------------------------------------ our own weights
def test_an_earlier_runs_weights_give_the_same_bytes(bench: Bench, tmp_path: Path) -> None:
    first = ["--generator", "medlord@smoke", "--samples", "2"]
    code, said = bench(*first)
    assert code == 0, said
    (folder,) = (tmp_path / "store" / "runs").glob("*/weights")
    shutil.copytree(folder, tmp_path / "carried")  # carried to another machine: links become folders
    code, said = bench(*first, "--weights", str(tmp_path / "carried"), store="other")
    assert code == 0, said
    assert "encode latents" not in said
    for kind, count in (("samples", 2), ("conditional", 1), ("reconstructions", 1)):
        assert _samples(tmp_path / "other", kind) == _samples(tmp_path / "store", kind)
        assert len(_samples(tmp_path / "other", kind)) == count


def test_folders_of_weights_are_found_in_every_layout(tmp_path: Path) -> None:
    for place in ("a/autoencoder", "b/medlord@tiny_autoencoder/weights", "c"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "model.json").write_text('{"kind": "medlord.autoencoder"}')
    assert find_weights(tmp_path / "a", "autoencoder") == tmp_path / "a" / "autoencoder"
    assert find_weights(tmp_path / "b", "autoencoder") == tmp_path / "b" / "medlord@tiny_autoencoder" / "weights"
    assert find_weights(tmp_path / "c", "autoencoder") == tmp_path / "c"
    with pytest.raises(MissingError, match="nothing for the stage diffusion"):
        find_weights(tmp_path / "c", "diffusion")


def test_the_weights_of_two_contestants_are_not_chosen_between(tmp_path: Path) -> None:
    for name in ("medlord@tiny_autoencoder", "medlord-untrained@tiny_autoencoder"):
        (tmp_path / name / "weights").mkdir(parents=True)
        (tmp_path / name / "weights" / "model.json").write_text("{}")
    with pytest.raises(UserError, match=r"2 weights for the stage autoencoder .*keep only one"):
        find_weights(tmp_path, "autoencoder")


# -------------------------------------------------------------------------------------------------------- bad weights
def _refused(bench: Bench, weights: Path, *more: str) -> tuple[int, str]:
    code, said = bench("--generator", "medlord@smoke", "--weights", str(weights), *FEW, *more)
    assert "Traceback" not in said
    (error,) = [line for line in said.splitlines() if line.startswith("Error")]
    return code, error


@pytest.mark.parametrize("kept", [0, 40, 2000, -200])
def test_a_truncated_checkpoint_is_one_line_that_names_it(
    keys: ModuleType, bench: Bench, tmp_path: Path, kept: int
) -> None:
    path = _upstream(keys, tmp_path / "theirs") / "vqgan_luna_ds8.pth"
    path.write_bytes(path.read_bytes()[:kept])
    code, error = _refused(bench, tmp_path / "theirs", "--no-conditional")
    assert code == 2 and str(path) in error


class _Code:
    """A pickle that would create a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_a_pickle_with_code_is_refused_and_not_executed(keys: ModuleType, bench: Bench, tmp_path: Path) -> None:
    path = _upstream(keys, tmp_path / "theirs") / "vqgan_luna_ds8.pth"
    torch.save({"model": _Code(tmp_path / "executed")}, path)
    code, error = _refused(bench, tmp_path / "theirs", "--no-conditional")
    assert code == 2 and str(path) in error
    assert not (tmp_path / "executed").exists()


def test_an_empty_folder_and_one_that_is_not_there_are_refused(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    code, error = _refused(bench, tmp_path / "nothing")
    assert code in (2, 3) and str(tmp_path / "nothing") in error
    code, error = _refused(bench, tmp_path / "nowhere")
    assert code in (2, 3) and str(tmp_path / "nowhere") in error
    (tmp_path / "nothing" / "readme.txt").write_text("no weights")
    code, error = _refused(bench, tmp_path / "nothing")
    assert code == 3 and "*vqgan*.pth" in error and "autoencoder/model.json" in error


def test_files_of_another_architecture_are_refused(keys: ModuleType, bench: Bench, tmp_path: Path) -> None:
    folder = _upstream(keys, tmp_path / "theirs")
    shutil.copy(folder / "ldm_luna_ds8.pth", folder / "vqgan_luna_ds8.pth")
    code, error = _refused(bench, folder, "--no-conditional")
    assert code == 2 and "autoencoder" in error and "vqgan_luna_ds8.pth" in error


def test_a_unet_of_another_autoencoder_is_refused(keys: ModuleType, bench: Bench, tmp_path: Path) -> None:
    folder = _upstream(keys, tmp_path / "theirs")
    shapes = keys.unet(**UNET, latent=4)
    torch.save({"model": _random(shapes, 1)}, folder / "ldm_luna_ds8.pth")
    code, error = _refused(bench, folder, "--no-conditional")
    assert code == 2 and "latents of 4 channels, the autoencoder's have 8" in error


def test_ours_with_another_tensor_is_refused_and_named(bench: Bench, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    assert bench("--generator", "medlord@smoke", "--samples", "0", "--no-conditional")[0] == 0
    (source,) = (tmp_path / "store").glob("runs/*/weights/medlord@smoke_autoencoder/weights")
    folder = tmp_path / "ours" / "autoencoder"
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    name = next(iter(tensors))
    save_file(tensors | {name: torch.zeros(3)}, folder / "model.safetensors")
    code, error = _refused(bench, tmp_path / "ours", "--samples", "0", "--no-conditional")
    assert code == 2 and name in error and "(3,)" in error
    (folder / "model.json").write_text("{")
    code, error = _refused(bench, tmp_path / "ours", "--samples", "0", "--no-conditional")
    assert code == 2 and "model.json" in error


def test_weights_without_a_controlnet_say_no_conditional(keys: ModuleType, bench: Bench, tmp_path: Path) -> None:
    code, error = _refused(bench, _upstream(keys, tmp_path / "theirs"))
    assert code == 3 and "controlnet" in error and "--no-conditional" in error


def test_a_single_file_serves_the_stage_that_its_name_says(keys: ModuleType, bench: Bench, tmp_path: Path) -> None:
    path = _upstream(keys, tmp_path / "theirs") / "vqgan_luna_ds8.pth"
    alone = ["--generator", "medlord@smoke", "--weights", str(path), "--no-conditional"]
    code, said = bench(*alone, "--samples", "0")
    assert code == 0, said
    code, error = _refused(bench, path, "--no-conditional")
    assert code == 3 and "nothing for the stage diffusion" in error


# ------------------------------------------------------------------------------------------------ the authors' ControlNet
@pytest.fixture
def cohort(run: Run) -> StoredCohort:
    """Four phantoms whose protocol has the six regions of the authors' ControlNet, in the bench's order."""
    made, _ = phantom(run, run.scratch / "phantom")
    protocol = made.protocol.model_copy(update={"condition_regions": CARDIAC[:6]})
    return StoredCohort(made.images, protocol, made.splits)


def _adopted(source: Path, cohort: StoredCohort, run: Run, **changes: Any) -> tuple[MedLoRD, dict[str, Path]]:
    generator = MedLoRD(MedLoRDConfig.model_validate({**changes, "sampling": {"steps": 3}}))
    weights: dict[str, Path] = {}
    for stage in generator.stages():
        inputs = {need: weights[need] for need in stage.needs}
        weights[stage.name] = generator.adopt(stage, source, cohort, inputs, run.scratch / "out" / stage.name, run)
    return generator, weights


def _described(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "model.json").read_text())["config"])


def _conditional(generator: MedLoRD, weights: dict[str, Path], cohort: StoredCohort, run: Run) -> torch.Tensor:
    case = cohort.ids("test")[0]
    used = {stage: weights[stage] for stage in generator.dependencies("sample-conditional").stages}
    request = Request(0, 7, cohort.protocol.grid, cohort.label_map(case))
    (volume,) = generator.sample(used, [request], run)
    return torch.from_numpy(volume.hu)


def test_the_authors_controlnet_comes_with_the_unet_it_was_trained_against(
    keys: ModuleType, cohort: StoredCohort, run: Run, tmp_path: Path
) -> None:
    source = _upstream(keys, tmp_path / "theirs", controlnet=True)
    generator, weights = _adopted(source, cohort, run)
    diffusion, control = _described(weights["diffusion"]), _described(weights["controlnet"])
    assert diffusion["converted_from"]["part"] == "model"  # raw
    assert control["converted_from"]["part"] == "ema.shadow"  # averaged, as the authors' sampler takes it
    assert (control["net"]["initial_stride"], control["net"]["embedding_channels"]) == (2, [8, 16])
    assert _conditional(generator, weights, cohort, run).shape == (32, 32, 16)
    (source / "controlnet_pccta.pth").unlink()
    stage = next(stage for stage in generator.stages() if stage.name == "diffusion")
    inputs = {"latents": weights["latents"]}
    alone = generator.adopt(stage, source, cohort, inputs, run.scratch / "alone", run)
    assert _described(alone)["converted_from"]["part"] == "ema.shadow"


def test_masks_reach_the_authors_controlnet_in_the_order_of_their_configuration(
    keys: ModuleType, cohort: StoredCohort, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """condition_keys: aorta, atrium_l, atrium_r, myocardium, ventricle_l, ventricle_r."""
    from medlord_bench.generators.medlord.controlnet import ControlNet

    expected = ("aorta", "left_atrium", "right_atrium", "lv_myocardium", "left_ventricle", "right_ventricle")
    assert CARDIAC[:6] != expected  # else this test would show nothing
    generator, weights = _adopted(_upstream(keys, tmp_path / "theirs", controlnet=True), cohort, run)
    seen: list[torch.Tensor] = []
    embed = ControlNet.embed
    monkeypatch.setattr(ControlNet, "embed", lambda net, masks: (seen.append(masks), embed(net, masks))[1])
    _conditional(generator, weights, cohort, run)
    truth = cohort.label_map(cohort.ids("test")[0])
    assert seen[0].shape == (1, 6, 32, 32, 16)
    for channel, region in enumerate(expected):
        assert torch.equal(seen[0][0, channel].bool(), torch.from_numpy(truth.region(region))), region
        assert truth.region(region).any()


def test_a_protocol_with_other_regions_is_refused_with_both_lists(
    keys: ModuleType, cohort: StoredCohort, run: Run, tmp_path: Path
) -> None:
    source = _upstream(keys, tmp_path / "theirs", controlnet=True)
    for regions in ((*CARDIAC[:6], "lungs"), CARDIAC[:5], ()):
        other = StoredCohort(
            cohort.images, cohort.protocol.model_copy(update={"condition_regions": regions}), cohort.splits
        )
        with pytest.raises(UserError, match="authors' ControlNet is conditioned on") as caught:
            _adopted(source, other, run)
        for region in {*regions, *UPSTREAM_REGIONS}:
            assert region in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_mask_stride_follows_from_the_autoencoder(
    keys: ModuleType, cohort: StoredCohort, run: Run, tmp_path: Path
) -> None:
    source = _upstream(keys, tmp_path / "theirs", controlnet=True, factor=8)
    with pytest.raises(UserError, match=r"ends at 1/2 or 1/4 of the mask, the autoencoder's latents are at 1/8"):
        _adopted(source, cohort, run)
    shapes = keys.controlnet(**(CONTROL | {"embedding": (8, 12, 16)}), masks=6, with_conditioning=False)
    torch.save({"model": _random(shapes, 3)}, source / "controlnet_pccta.pth")
    _, weights = _adopted(source, cohort, run)
    assert _described(weights["controlnet"])["net"]["initial_stride"] == 2
    stride_1 = _upstream(keys, tmp_path / "fine", factor=4)
    torch.save({"model": _random(shapes, 3)}, stride_1 / "controlnet_pccta.pth")
    _, weights = _adopted(stride_1, cohort, dataclasses.replace(run, scratch=tmp_path / "again"))
    assert _described(weights["controlnet"])["net"]["initial_stride"] == 1


def test_a_controlnet_of_another_unet_or_number_of_masks_is_refused(
    keys: ModuleType, cohort: StoredCohort, run: Run, tmp_path: Path
) -> None:
    source = _upstream(keys, tmp_path / "theirs", controlnet=True)
    shapes = keys.controlnet(**(CONTROL | {"unet_channels": (128, 256)}), masks=6, with_conditioning=True)
    torch.save({"model": _random(shapes, 3)}, source / "controlnet_pccta.pth")
    with pytest.raises(UserError, match=r"with channels \(128, 256\), the U-Net has \(64, 128\)"):
        _adopted(source, cohort, run)
    shapes = keys.controlnet(**CONTROL, masks=7, with_conditioning=True)
    torch.save({"model": _random(shapes, 3)}, source / "controlnet_pccta.pth")
    with pytest.raises(UserError, match="reads 7 masks, expected 6"):
        _adopted(source, cohort, run)


def test_heads_that_the_configuration_gives_for_this_network_are_taken(
    keys: ModuleType, cohort: StoredCohort, run: Run, tmp_path: Path
) -> None:
    source = _upstream(keys, tmp_path / "theirs")
    (source / "controlnet_pccta.pth").unlink(missing_ok=True)
    net = {"channels": (64, 128), "attention_levels": (False, True), "num_head_channels": (0, 64)}
    generator = MedLoRD(MedLoRDConfig.model_validate({"diffusion": {"net": net, "timesteps": 1000}}))
    weights: dict[str, Path] = {}
    for stage in generator.stages()[:3]:
        inputs = {need: weights[need] for need in stage.needs}
        weights[stage.name] = generator.adopt(stage, source, cohort, inputs, run.scratch / "out" / stage.name, run)
    found = _described(weights["diffusion"])
    assert found["net"]["num_head_channels"] == [0, 64]
    assert (found["timesteps"], found["assumed"]["timesteps"]) == (1000, 1000)
