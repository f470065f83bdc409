"""Axes: every flip and permutation of real anatomy is found, and what shows no orientation raises no alarm."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest

from medlord_bench.contracts import DataProtocol, Item, MetricInputs, Run
from medlord_bench.contracts.metrics import protocol_of
from medlord_bench.contracts.results import Score
from medlord_bench.metrics.axes.match import ORIENTATIONS, match, shrink
from medlord_bench.metrics.axes.metric import REAL, SAMPLES, Axes, AxesConfig
from medlord_bench.plugins.datasets.phantom.dataset import PhantomConfig, PhantomDataset
from medlord_bench.volumes.arrays import save_state

SIDE, WINDOW = 16, (-1000, 1000)
PHANTOM = PhantomDataset(PhantomConfig(shape=(32, 32, 24), n_train=28, n_val=0, n_test=0))
DATA: DataProtocol = PHANTOM.protocol


@pytest.fixture(scope="module")
def cubes() -> list[np.ndarray]:
    """Small cubes of 28 phantoms: the first 16 stand for the real volumes, the others for samples."""
    return [shrink(PHANTOM.load(case)[0].hu, WINDOW, SIDE) for case in PHANTOM.cases("train")]


def items(folder: Path, source: str, cubes: Sequence[np.ndarray], patients: int = 0, failed: int = 0) -> list[Item]:
    made = [Item(f"failed-{i}", source, None, failed="constant") for i in range(failed)]
    for i, cube in enumerate(cubes):
        path = folder / f"{source.replace(':', '-')}-{i}.safetensors"
        save_state(path, {"cube": cube.astype(np.float32)})
        made.append(Item(path.stem, source, path, patient=f"p{i % patients}" if patients else None))
    return made


def score(run: Run, samples: Sequence[Item], real: Sequence[Item], **settings: object) -> Score:
    (found,) = Axes(AxesConfig.model_validate(settings)).reduce(
        MetricInputs("toy", "phantom", DATA, {SAMPLES: samples, REAL: real}), run
    )
    assert isinstance(found, Score)
    return found


def test_there_are_48_orientations_and_each_is_undone() -> None:
    cube = np.random.default_rng(0).normal(size=(3, 3, 3))
    assert len({one.code for one in ORIENTATIONS}) == 48
    assert ORIENTATIONS[0].code == "RAS" and (ORIENTATIONS[0].to_ras(cube) == cube).all()
    for one in ORIENTATIONS:
        assert (one.to_ras(one.from_ras(cube)) == cube).all()


def test_a_code_says_where_the_axes_of_the_samples_run_to() -> None:
    by_code = {one.code: one for one in ORIENTATIONS}
    ras = np.zeros((4, 4, 4))
    ras[3, 0, 1] = 1  # far right, posterior, lower half
    assert by_code["LAS"].from_ras(ras)[0, 0, 1] == 1
    assert by_code["SRA"].from_ras(ras)[1, 3, 0] == 1
    assert by_code["PIR"].from_ras(ras)[3, 2, 3] == 1


@pytest.mark.parametrize("axes", list(permutations(range(3))))
@pytest.mark.parametrize("flips", list(product((False, True), repeat=3)))
def test_phantoms_in_any_orientation_are_recognised_with_a_warning(
    cubes: list[np.ndarray], axes: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> None:
    laid = [np.flip(cube.transpose(axes), [i for i in range(3) if flips[i]])[None] for cube in cubes[16:]]
    found = match(laid, [cube[None] for cube in cubes[:16]], 0)
    assert (found.best.axes, found.best.flips) == (axes, flips)
    assert found.clear == (found.best.code != "RAS")
    assert found.correlation > 0.9


def test_patches_that_are_half_air_raise_no_alarm() -> None:
    """Air in another place than in the real patches fits better when turned; the body in them does not."""
    thorax = PhantomDataset(PhantomConfig(shape=(48, 48, 40), n_train=28, n_val=0, n_test=0))
    volumes = [thorax.load(case)[0].hu[12:36, 12:36, 8:32] for case in thorax.cases("train")]
    patches = [shrink(hu, WINDOW, SIDE)[None] for hu in volumes]
    samples = [patch.copy() for patch in patches[16:]]
    for sample in samples:
        sample[:, : SIDE // 2] = -1000
    found = match(samples, patches[:16], 0)
    assert found.correlation - found.identity.value > found.margin, "the case is one"
    assert found.best.code != "RAS" and not found.in_body and not found.clear


def test_flipped_volumes_are_caught_from_the_volume_to_the_warning(run: Run, tmp_path: Path) -> None:
    metric = Axes(AxesConfig(side=SIDE))
    volumes = [PHANTOM.load(case)[0].hu for case in PHANTOM.cases("train")]

    def states(source: str, some: Sequence[np.ndarray]) -> list[Item]:
        given = []
        for i, hu in enumerate(some):
            np.save(tmp_path / f"{source[:4]}-{i}.npy", hu)
            given.append(Item(f"{source}-{i}", source, tmp_path / f"{source[:4]}-{i}.npy"))
        return items(tmp_path, source, [state["cube"] for state in metric.extract(given, run)])

    real = states("real:train", volumes[:14])
    upright = score(run, states("samples", volumes[14:]), real, side=SIDE)
    assert upright.warning == "" and "RAS fits best" in upright.note_text and upright.value > 0.9
    turned = score(run, states("samples", [hu[:, ::-1, ::-1] for hu in volumes[14:]]), real, side=SIDE)
    assert "RPI" in turned.warning and turned.value < upright.value


def test_value_is_pearsons_correlation_of_the_means_and_the_floor_real_against_real(
    run: Run, tmp_path: Path, cubes: list[np.ndarray]
) -> None:
    real, samples = cubes[:16], cubes[16:]
    found = score(run, items(tmp_path, "samples", samples), items(tmp_path, "real:train", real, patients=8))
    expected = np.corrcoef(np.mean(samples, 0).ravel(), np.mean(real, 0).ravel())[0, 1]
    assert found.value == pytest.approx(expected, rel=1e-6)
    assert found.low < found.value < found.high <= 1
    assert 0.8 < found.floor <= 1 and found.floor_n == 8
    assert (found.n, found.n_reference, found.reference) == (12, 16, "train")


def test_noise_gives_no_warning_and_says_that_it_shows_no_orientation(
    run: Run, tmp_path: Path, cubes: list[np.ndarray]
) -> None:
    real = items(tmp_path, "real:train", cubes[:16])
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = score(run, items(tmp_path, "samples", rng.normal(0, 300, (8, SIDE, SIDE, SIDE))), real)
        assert found.warning == "" and "too different" in found.note_text


def test_samples_that_look_alike_from_both_sides_give_no_warning(cubes: list[np.ndarray]) -> None:
    """Half the samples mirrored, as after training with flips: neither way may win by luck."""
    alarms, rng = 0, np.random.default_rng(0)
    for _ in range(60):
        samples = [(cube[::-1] if rng.random() < 0.5 else cube)[None] for cube in cubes[16:]]
        alarms += match(samples, [cube[None] for cube in cubes[:16]], 0).clear
    assert alarms <= 3


def test_a_symmetric_real_set_gives_no_warning(run: Run, tmp_path: Path, cubes: list[np.ndarray]) -> None:
    both = [cube + cube[::-1] for cube in cubes]
    found = score(run, items(tmp_path, "samples", both[16:]), items(tmp_path, "real:train", both[:16]))
    assert found.warning == ""


def test_failed_samples_count_in_n_and_too_few_are_not_run(run: Run, tmp_path: Path, cubes: list[np.ndarray]) -> None:
    real = items(tmp_path, "real:train", cubes[:16])
    found = score(run, items(tmp_path, "samples", cubes[16:22], failed=3), real)
    assert (found.n, found.failed, found.status) == (9, 3, "ok")
    few = score(run, items(tmp_path, "samples", cubes[16:19], failed=5), real)
    assert few.status == "not_run" and "3 of 8 samples" in few.reason and few.value is None
    patients = score(run, items(tmp_path, "samples", cubes[16:]), items(tmp_path, "real:train", cubes[:9], patients=3))
    assert "3 real training patients" in patients.reason
    assert "no unconditional samples" in score(run, [], real).reason


def test_a_constant_mean_sample_is_not_run_with_the_reason(run: Run, tmp_path: Path, cubes: list[np.ndarray]) -> None:
    flat = [np.full((SIDE, SIDE, SIDE), -1000.0)] * 6
    found = score(run, items(tmp_path, "samples", flat), items(tmp_path, "real:train", cubes[:16]))
    assert found.status == "not_run" and "constant between -1000 and 1000 HU" in found.reason


@pytest.mark.parametrize("shape", [(32, 32, 24), (16, 16, 16), (20, 33, 7)])
def test_boxes_hold_the_mean_of_what_lies_in_them(shape: tuple[int, int, int]) -> None:
    """Against a copy of every voxel 16 times along each axis, averaged in whole blocks."""
    hu = np.random.default_rng(0).integers(-2000, 2000, shape).astype(np.int16)
    fine = hu.clip(*WINDOW).astype(np.float64)
    for axis, length in enumerate(shape):
        fine = np.repeat(fine, SIDE, axis=axis)
        fine = np.moveaxis(
            np.moveaxis(fine, axis, 0).reshape(SIDE, length, *np.delete(fine.shape, axis)).mean(1), 0, axis
        )
    assert shrink(hu, WINDOW, SIDE) == pytest.approx(fine, abs=0.01)


def test_protocol_id_changes_with_what_makes_values_incomparable() -> None:
    configs = [AxesConfig(), AxesConfig(side=16), AxesConfig(hu_window=(-160, 240)), AxesConfig(least_correlation=0.6)]
    assert len({protocol_of("axes", Axes(config), DATA)[0] for config in configs}) == 4
    assert protocol_of("axes", Axes(AxesConfig()), DATA)[0].startswith("axes-cube32-")
