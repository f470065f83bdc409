"""VQ-Trans as a plugin: presets hold the paper's numbers, its grid and the protocol's meet, stops change nothing."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
from collections.abc import Mapping, Sequence
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
from medlord_bench.errors import Stopped, UserError
from medlord_bench.generators.vqtrans.configs import VQTransConfig
from medlord_bench.generators.vqtrans.plugin import VQTrans
from medlord_bench.generators.vqtrans.presets import PRESETS, VARIANTS
from medlord_bench.generators.vqtrans.tokens import token_shape
from medlord_bench.nn.intensity import scale_hu
from medlord_bench.nn.vqgan.training import load_autoencoder
from medlord_bench.util.hashing import file_sha256
from medlord_bench.util.progress import SilentProgress
from medlord_bench.volumes.arrays import load_state
from medlord_bench.volumes.native_grid import NativeCohort, from_native, native_grid, to_native

PURPOSES: tuple[Purpose, ...] = ("sample", "reconstruct")
CONTESTANTS = [(preset, variant) for preset in PRESETS for variant in ("", *VARIANTS)]
WINDOW = (-1000, 1000)


def _plugin(preset: str, *over: Mapping[str, Any]) -> VQTrans:
    config: dict[str, Any] = dict(PRESETS[preset])
    for layer in over:
        config = merged(config, layer)
    return VQTrans(VQTransConfig.model_validate(config))


# ------------------------------------------------------------------------------------------------------------- presets
@pytest.mark.parametrize(("preset", "variant"), CONTESTANTS)
def test_stages_and_what_is_read_fit_together_in_every_preset(preset: str, variant: str) -> None:
    generator = _plugin(preset, VARIANTS.get(variant, {}))
    stages = generator.stages()
    assert [stage.name for stage in stages] == ["autoencoder", "tokens", "transformer"]
    assert [stage.needs for stage in stages] == [(), ("autoencoder",), ("tokens",)]
    for stage in stages:
        assert not [path for path in decides(generator.config, stage) if path.endswith(".steps")], "training restarts"
        json.dumps(decides(generator.config, stage))  # it is hashed
    for purpose in PURPOSES:
        json.dumps(decides(generator.config, generator.dependencies(purpose)))
    assert generator.dependencies("sample").stages == ("autoencoder", "transformer")
    assert generator.dependencies("reconstruct").stages == ("autoencoder",)
    if variant == "untrained":
        assert [stage.steps for stage in stages] == [0, None, 0]


def test_24gb_has_the_sequence_length_of_the_paper_and_the_network_of_the_reference() -> None:
    config = _plugin("24gb").config
    shape = token_shape(config.native((512, 512, 256)), config.autoencoder.net.factor)
    assert config.autoencoder.net.factor == 16
    assert config.native((512, 512, 256)) == (448, 448, 256)
    assert int(np.prod(shape)) == 12_544
    net = config.transformer.net
    assert (net.depth, net.dim, net.heads) == (22, 256, 8)
    assert config.autoencoder.steps == 250_000 and config.autoencoder.patch == (128, 128, 128)
    assert config.sampling.top_k is None and config.sampling.top_p is None and config.sampling.temperature == 1


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
        ({"grid": (16, 16, 16)}, {"autoencoder", "tokens"}),
        ({"fit": "crop-pad"}, {"autoencoder", "tokens"}),
        ({"tokens": {"precision": "bf16"}}, {"tokens"}),
        ({"transformer": {"batch": 4}}, {"transformer"}),
        ({"transformer": {"steps": 99}}, set()),
        ({"sampling": {"top_k": 2}}, set()),
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
    others: tuple[dict[str, Any], ...] = (
        *({"sampling": {"top_k": 2}}, {"sampling": {"tokens_precision": "fp32"}}, {"fit": "crop-pad"}),
    )
    assert all(_reads("sample", **other) != plain for other in others)
    assert _reads("reconstruct", sampling={"top_k": 2}) == _reads("reconstruct")


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
    ("over", "data", "message"),
    [
        ({}, protocol((60, 64, 48)), r"multiples of 8; the nearest such grid is \(64, 64, 48\): --set generator.grid="),
        ({"grid": (60, 64, 47)}, protocol((512, 512, 256)), r"the nearest such grid is \(64, 64, 48\)"),
        ({}, protocol((16, 64, 48)), r"autoencoder.patch .*larger than the grid \(16, 64, 48\)"),
        ({}, protocol((64, 64, 48), val=0), "no val case"),
    ],
)
def test_a_grid_or_split_it_cannot_take_is_refused_before_any_work(
    over: Mapping[str, Any], data: DataProtocol, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        _plugin("tiny", over).check(data)


@pytest.mark.parametrize("shape", [(512, 512, 256), (512, 512, 128), (500, 500, 333)])
def test_24gb_takes_any_grid_since_it_works_on_its_own(shape: tuple[int, int, int]) -> None:
    _plugin("24gb").check(protocol(shape))


# --------------------------------------------------------------------------------------------------------------- grids
def smooth(shape: tuple[int, int, int], spread: float = 60.0) -> Volume:
    """A blob about the middle of the field of view: the same function whatever the grid, linear where it matters not."""
    axes = [(np.arange(n) + 0.5) / n - 0.5 for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    hu = 900 * np.exp(-(spread / 10) * (x**2 + y**2 + z**2)) - 500
    return Volume(np.rint(hu).astype(np.int16), np.diag([2.0, 2.0, 3.0, 1.0]))


def test_resizing_there_is_the_same_image_on_the_other_grid_and_back_is_the_image() -> None:
    full, native = (64, 64, 32), (56, 56, 32)
    real = smooth(full)
    there = to_native(real, native, WINDOW, "resize")
    assert there.shape == native
    inner = (slice(4, -4),) * 3
    assert np.abs(there.hu.astype(int) - smooth(native).hu)[inner].max() <= 6  # interpolation of a curve; of 900 HU
    back = from_native(there, full, real.affine, "resize", WINDOW[0])
    assert back.shape == full and np.array_equal(back.affine, real.affine)
    assert np.abs(back.hu.astype(int) - real.hu)[inner].max() <= 10


def test_cropping_there_keeps_the_middle_voxels_and_back_gives_air_outside() -> None:
    real = smooth((64, 64, 32))
    there = to_native(real, (56, 56, 32), WINDOW, "crop-pad")
    assert np.array_equal(there.hu, real.hu[4:-4, 4:-4])
    back = from_native(there, (64, 64, 32), real.affine, "crop-pad", WINDOW[0])
    assert np.array_equal(back.hu[4:-4, 4:-4], real.hu[4:-4, 4:-4])
    outside = np.ones((64, 64, 32), dtype=bool)
    outside[4:-4, 4:-4] = False
    assert (back.hu[outside] == WINDOW[0]).all()


@pytest.mark.parametrize("how", ["resize", "crop-pad"])
def test_the_protocols_own_grid_is_left_alone(how: Any) -> None:
    real = smooth((64, 64, 32))
    assert to_native(real, (64, 64, 32), WINDOW, how) is real
    assert np.array_equal(from_native(real, (64, 64, 32), real.affine, how, -1000).hu, real.hu)


def test_the_spacing_of_the_native_grid_keeps_the_field_of_view() -> None:
    grid = Grid(shape=(512, 512, 256), spacing=(0.7, 0.7, 1.0))
    resized = native_grid(grid, (448, 448, 256), "resize")
    assert resized.spacing == pytest.approx((0.8, 0.8, 1.0)) and resized.hu_window == grid.hu_window
    assert native_grid(grid, (448, 448, 256), "crop-pad").spacing == grid.spacing
    assert native_grid(Grid(shape=(512, 512, 256)), (448, 448, 256), "resize").spacing is None


# ------------------------------------------------------------------------------------------------------------ training
@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("vqtrans")
    return Run(device="cpu", seed=0, progress=SilentProgress(), log=logging.getLogger("test"), scratch=folder)


@pytest.fixture(scope="module")
def cohort(context: Run) -> StoredCohort:
    return phantom(context, context.scratch / "phantom")[0]


Trained = tuple[VQTrans, dict[str, Path]]


def _train(generator: VQTrans, cohort: StoredCohort, run: Run, out: Path) -> dict[str, Path]:
    weights: dict[str, Path] = {}
    for stage in generator.stages():
        inputs = {need: weights[need] for need in stage.needs}
        weights[stage.name] = generator.train(stage, cohort, inputs, out / stage.name, run)
    return weights


@pytest.fixture(scope="module")
def trained(cohort: StoredCohort, context: Run) -> Trained:
    """On a grid of its own, which every case and sample is resized to and from."""
    generator = _plugin("smoke", {"grid": (24, 24, 16)})
    return generator, _train(generator, cohort, context, context.scratch / "trained")


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}


def test_a_training_that_is_stopped_after_every_step_ends_in_the_same_bytes(
    trained: Trained, cohort: StoredCohort, context: Run
) -> None:
    generator, weights = trained
    stops = 0
    for stage in generator.stages():
        inputs = {need: weights[need] for need in stage.needs}
        out = context.scratch / "stopped" / stage.name
        while True:
            try:
                run = dataclasses.replace(context, stop=lambda: True)
                resumed = generator.train(stage, cohort, inputs, out, run)
                break
            except Stopped:
                stops += 1
        assert _digests(resumed) == _digests(weights[stage.name]), stage.name
    assert stops >= 10


def test_stored_tokens_are_the_nearest_codes_of_the_resized_images_in_raster_order(
    trained: Trained, cohort: StoredCohort
) -> None:
    _, weights = trained
    net = load_autoencoder(weights["autoencoder"], "cpu")
    for case in cohort.ids("train")[:2]:
        volume = to_native(Volume(np.asarray(cohort.hu(case)), np.eye(4)), (24, 24, 16), WINDOW, "resize")
        z = net.encode(scale_hu(volume.hu, WINDOW)[None, None])[0].double()
        vectors, codes = z.flatten(1).T, net.quantiser.embedding.weight.double()
        nearest = torch.cdist(vectors, codes, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1)
        stored = load_state(weights["tokens"] / f"{case}.safetensors")["tokens"]
        assert stored.shape == (3, 3, 2)
        assert np.array_equal(stored.reshape(-1), nearest.numpy())


def test_validation_and_training_see_the_native_grid(cohort: StoredCohort, tmp_path: Path) -> None:
    native = NativeCohort(
        cohort, native_grid(cohort.protocol.grid, (24, 24, 16), "resize"), "resize", tmp_path / "native"
    )
    case = cohort.ids("train")[0]
    first = np.array(native.hu(case))
    expected = to_native(Volume(np.asarray(cohort.hu(case)), np.eye(4)), (24, 24, 16), WINDOW, "resize")
    assert np.array_equal(first, expected.hu) and first.dtype == np.int16
    written = (tmp_path / "native" / f"{case}.npy").stat().st_mtime_ns
    assert np.array_equal(native.hu(case), first)
    assert (tmp_path / "native" / f"{case}.npy").stat().st_mtime_ns == written, "it was made twice"


# ------------------------------------------------------------------------------------------------------------ sampling
def _sampled(
    generator: VQTrans, weights: Mapping[str, Path], cohort: StoredCohort, run: Run, *indices: int
) -> Sequence[Volume]:
    requests = [Request(i, 100 + i, cohort.protocol.grid) for i in indices]
    volumes = list(generator.sample(weights, requests, run))
    assert all(isinstance(volume, Volume) for volume in volumes)
    return [volume for volume in volumes if isinstance(volume, Volume)]


def test_samples_come_back_onto_the_protocols_grid_whatever_their_batch(
    trained: Trained, cohort: StoredCohort, context: Run
) -> None:
    generator, weights = trained
    alone = [_sampled(generator, weights, cohort, context, index)[0] for index in range(3)]
    together = _sampled(generator, weights, cohort, dataclasses.replace(context, batch=3), 0, 1, 2)
    for a, b in zip(alone, together, strict=True):
        assert a.shape == b.shape == (32, 32, 16)
        assert np.array_equal(a.hu, b.hu)
    assert not np.array_equal(alone[0].hu, alone[1].hu)


def test_sampling_that_is_stopped_anywhere_goes_on_to_the_same_bytes(
    trained: Trained, cohort: StoredCohort, context: Run, tmp_path: Path
) -> None:
    """Stopped between tokens, and left amid the decoding of a batch, as a killed process would."""
    generator, weights = trained
    whole = _sampled(generator, weights, cohort, dataclasses.replace(context, batch=2), 0, 1)
    calls = itertools.count()
    run = dataclasses.replace(context, batch=2, scratch=tmp_path, stop=lambda: next(calls) == 9)
    with pytest.raises(Stopped, match="token 9 of 18"):
        _sampled(generator, weights, cohort, run, 0, 1)
    saved = sorted(tmp_path.glob("tokens-*.safetensors"))
    assert [len(load_state(path)["tokens"]) for path in saved] == [9, 9]
    first = next(generator.sample(weights, [Request(i, 100 + i, cohort.protocol.grid) for i in range(2)], run))
    assert isinstance(first, Volume) and np.array_equal(first.hu, whole[0].hu)
    assert [len(load_state(path)["tokens"]) for path in saved] == [18, 18]
    before = next(calls)
    again = _sampled(generator, weights, cohort, run, 0, 1)
    assert next(calls) == before + 1, "tokens that were there were drawn again"
    assert all(np.array_equal(a.hu, b.hu) for a, b in zip(again, whole, strict=True))
    assert not list(tmp_path.glob("tokens-*")), "token files outlive their volumes"


def test_tokens_that_other_settings_drew_are_not_gone_on_from(
    trained: Trained, cohort: StoredCohort, context: Run, tmp_path: Path
) -> None:
    generator, weights = trained
    calls = itertools.count()
    run = dataclasses.replace(context, scratch=tmp_path, stop=lambda: next(calls) == 12)
    with pytest.raises(Stopped):
        _sampled(generator, weights, cohort, run, 0)
    greedy = _plugin("smoke", {"grid": (24, 24, 16), "sampling": {"top_k": 1}})
    expected = _sampled(greedy, weights, cohort, context, 0)
    assert np.array_equal(_sampled(greedy, weights, cohort, run, 0)[0].hu, expected[0].hu)


def test_a_transformer_of_another_codebook_is_refused(
    trained: Trained, cohort: StoredCohort, context: Run, tmp_path: Path
) -> None:
    generator, weights = trained
    other = _plugin("smoke", VARIANTS["untrained"], {"autoencoder": {"net": {"codes": 16}}})
    stage = other.stages()[0]
    mixed = {**weights, "autoencoder": other.train(stage, cohort, {}, tmp_path, context)}
    with pytest.raises(UserError, match="on 32 codes, the autoencoder has 16"):
        _sampled(generator, mixed, cohort, context, 0)


# -------------------------------------------------------------------------------------------------------- reconstruct
def test_reconstructions_are_there_and_back_through_the_autoencoder(
    trained: Trained, cohort: StoredCohort, context: Run
) -> None:
    generator, weights = trained
    net = load_autoencoder(weights["autoencoder"], "cpu")
    cases = cohort.ids("test")[:2]
    made = generator.reconstruct(weights, ((case, cohort.volume(case)) for case in cases), context)
    for case, found in zip(cases, made, strict=True):
        real = cohort.volume(case)
        native = to_native(real, (24, 24, 16), WINDOW, "resize")
        image, _ = net(scale_hu(native.hu, WINDOW)[None, None])
        hu = np.rint((image[0, 0].clamp(-1, 1).numpy().astype(np.float64) + 1) / 2 * 2000 - 1000).astype(np.int16)
        expected = from_native(Volume(hu, np.eye(4)), real.shape, real.affine, "resize", WINDOW[0])
        assert isinstance(found, Volume)
        assert np.abs(found.hu.astype(int) - expected.hu).max() <= 1
        assert np.array_equal(found.affine, real.affine) and np.ptp(found.hu) > 0


def test_tiles_change_no_reconstruction(trained: Trained, cohort: StoredCohort, context: Run) -> None:
    _, weights = trained
    real = [(case, cohort.volume(case)) for case in cohort.ids("test")[:1]]
    (whole,), (tiled,) = (
        list(_plugin("smoke", {"grid": (24, 24, 16), "sampling": {"tile": tile}}).reconstruct(weights, real, context))
        for tile in (None, (8, 16, 8))
    )
    assert isinstance(whole, Volume) and isinstance(tiled, Volume)
    assert np.abs(whole.hu.astype(int) - tiled.hu).max() <= 1
