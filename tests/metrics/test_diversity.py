"""Diversity: repeated samples are seen, whole and in part; varied ones are not reported; MS-SSIM is MONAI's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.metrics import MultiScaleSSIMMetric
from pydantic import ValidationError

from medlord_bench.contracts import Item, MetricInputs, Run
from medlord_bench.contracts.results import Score
from medlord_bench.errors import UserError
from medlord_bench.metrics.diversity.metric import REAL, SAMPLES, Diversity, DiversityConfig
from medlord_bench.metrics.diversity.similarity import distances, ms_ssim_of_pairs
from medlord_bench.plugins.datasets.phantom.dataset import PhantomConfig, PhantomDataset
from medlord_bench.volumes.arrays import save_state
from medlord_bench.volumes.scales import scale_weights

PHANTOM = PhantomDataset(PhantomConfig(shape=(32, 32, 24), n_train=48, n_val=0, n_test=0))
N = 16
Volumes = Sequence[np.ndarray | None]


@pytest.fixture(scope="module")
def phantoms() -> list[np.ndarray]:
    return [PHANTOM.load(case)[0].hu for case in PHANTOM.cases("train")]


def noisy(volume: np.ndarray, seed: int, hu: float) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, hu, volume.shape)
    return np.rint(volume + noise).clip(-1024, 3000).astype(np.int16)


def items(run: Run, folder: Path, source: str, volumes: Volumes, patients: Sequence[str] | None = None) -> list[Item]:
    made = []
    for i, volume in enumerate(volumes):
        id = f"{source}-{i:02d}"
        patient = patients[i] if patients else None
        if volume is None:
            made.append(Item(id, source, None, patient, failed="constant"))
            continue
        np.save(folder / f"{id.replace(':', '-')}.npy", volume)
        item = Item(id, source, folder / f"{id.replace(':', '-')}.npy", patient)
        (state,) = Diversity(DiversityConfig()).extract([item], run)
        path = folder / f"{id.replace(':', '-')}.safetensors"
        save_state(path, state)
        made.append(dataclasses.replace(item, path=path))
    return made


def scores(run: Run, samples: Sequence[Item], real: Sequence[Item], **settings: object) -> dict[str, Score]:
    config = DiversityConfig.model_validate({"permutations": 499, **settings})
    given = MetricInputs("toy", "phantom", PHANTOM.protocol, {SAMPLES: samples, REAL: real}, "diversity-0")
    return {one.metric: one for one in Diversity(config).reduce(given, run)}


@pytest.fixture(scope="module")
def measure(tmp_path_factory: pytest.TempPathFactory, phantoms: list[np.ndarray]) -> object:
    folder = tmp_path_factory.mktemp("diversity")

    def measured(run: Run, samples: Volumes, real: Volumes | None = None, **settings: object) -> dict[str, Score]:
        made = items(run, folder, "samples", samples)
        return scores(run, made, items(run, folder, "real:train", real or phantoms[:N]), **settings)

    return measured


@pytest.mark.parametrize("shape", [(48, 52, 50), (24, 30, 13), (6, 20, 9)])
def test_ms_ssim_of_pairs_is_monais(shape: tuple[int, int, int]) -> None:
    pictures = np.random.default_rng(0).normal(0, 400, (3, *shape)).astype(np.float32)
    pictures[1:] += pictures[0]
    found = ms_ssim_of_pairs(pictures, (-1000, 1000), 3, 1.5)
    unit = torch.from_numpy(pictures).clamp(-1000, 1000).add(1000).div(2000)[:, None, None]
    theirs = MultiScaleSSIMMetric(3, kernel_size=3, kernel_sigma=1.5, weights=scale_weights(min(shape), 3))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert found[i, j] == found[j, i] == pytest.approx(theirs(unit[i], unit[j]).item(), abs=2e-5), (
            "MONAI's windows add up to 1 to seven digits, which its variances of smooth volumes multiply"
        )
    assert np.diag(found) == pytest.approx(1)


def test_distance_is_the_root_of_two_times_one_minus_the_correlation() -> None:
    pictures = np.random.default_rng(1).normal(0, 100, (4, 32, 16, 8)).astype(np.float32)
    pictures[1] = 3 * pictures[0] + 200  # a gain and an offset
    pictures[2] = 7
    found = distances(pictures)
    means = pictures.astype(float).reshape(4, 8, 4, 8, 2, 8, 1).mean((2, 4, 6)).reshape(4, -1)
    expected = np.sqrt(2 * (1 - np.corrcoef(means[0], means[3])[0, 1]))
    assert found[0, 3] == pytest.approx(expected, rel=1e-5)
    assert found[0, 1] == pytest.approx(0, abs=1e-6) and found[0, 2] == pytest.approx(1)
    assert np.diag(found).tolist() == [0, 0, 0, 0] and np.isfinite(found).all()


@pytest.mark.parametrize("hu", [0, 5, 100])
def test_one_volume_repeated_is_seen_at_16(run: Run, measure, phantoms: list[np.ndarray], hu: float) -> None:
    found = measure(run, [noisy(phantoms[40], i, hu) for i in range(N)])
    assert found["distinct_samples"].value == 1 and found["vendi"].value < 1.3
    assert found["pair_ms_ssim"].value > 0.9
    for one in found.values():
        assert one.warning and one.p < 0.01 and one.n == one.n_reference == one.floor_n == N
        assert one.reference == "train"


@pytest.mark.parametrize("n", [8, 16, 24])
def test_half_of_the_samples_repeated_is_seen(run: Run, measure, phantoms: list[np.ndarray], n: int) -> None:
    samples = [noisy(phantoms[24 + i % (n // 2)], i, 10) for i in range(n)]
    found = measure(run, samples, phantoms[:n])
    assert found["distinct_samples"].value == n // 2 and found["distinct_samples"].floor == n
    assert found["distinct_samples"].p < 0.02
    if n > 8:  # at 8 the smallest p of this test is above 0.005
        assert found["distinct_samples"].warning.startswith(
            f"samples are more alike than patients are: {n // 2} of {n} samples are distinct"
        )
        assert found["vendi"].value < n / 2 < found["vendi"].floor and found["vendi"].warning
    assert (
        f"{n // 2} groups of equal samples, the largest 2: samples-00, samples-" in found["distinct_samples"].note_text
    )


def test_unseen_volumes_are_as_varied_as_real_ones(run: Run, measure, phantoms: list[np.ndarray]) -> None:
    found = measure(run, phantoms[16:32])
    assert found["distinct_samples"].value == found["distinct_samples"].floor == N
    for one in found.values():
        assert not one.warning and one.p > 0.01
    assert found["vendi"].low < found["vendi"].floor < found["vendi"].high


def test_an_offset_is_no_loss_of_variety_and_noise_is_all_variety(
    run: Run, measure, phantoms: list[np.ndarray]
) -> None:
    plain, shifted = measure(run, phantoms[16:32]), measure(run, [hu + np.int16(100) for hu in phantoms[16:32]])
    assert shifted["vendi"].value == pytest.approx(plain["vendi"].value, rel=0.05)
    noise = measure(run, [noisy(np.zeros(phantoms[0].shape), i, 400) for i in range(N)])
    assert noise["vendi"].value > 15 and noise["vendi"].p < 0.01 and not noise["vendi"].warning
    assert noise["pair_ms_ssim"].value < noise["pair_ms_ssim"].floor and not noise["pair_ms_ssim"].warning
    assert "not fidelity" in noise["pair_ms_ssim"].note_text


def test_failed_samples_count_in_n_and_both_sides_are_equal(run: Run, measure, phantoms: list[np.ndarray]) -> None:
    found = measure(run, [None, *phantoms[20:32]], phantoms[:18])["vendi"]
    assert (found.n, found.failed, found.n_reference) == (13, 1, 12)
    assert "12 of 18 real training patients" in found.note_text
    most = measure(run, phantoms[20:36], phantoms[:18], most=10)["vendi"]
    assert (most.n, most.n_reference) == (10, 10) and "10 of 16 samples" in most.note_text


def test_a_patient_counts_once(run: Run, tmp_path: Path, phantoms: list[np.ndarray]) -> None:
    real = items(run, tmp_path, "real:train", phantoms[:20], [f"p{i // 2}" for i in range(20)])
    found = scores(run, items(run, tmp_path, "samples", phantoms[20:36]), real)["pair_ms_ssim"]
    assert found.n == found.n_reference == 10


def test_reasons_of_not_run(run: Run, measure, phantoms: list[np.ndarray]) -> None:
    def reason(samples: Volumes, real: Volumes) -> str:
        found = measure(run, samples, real)
        assert {one.status for one in found.values()} == {"not_run"} and len(found) == 3
        return found["vendi"].reason

    assert "7 samples; diversity needs at least 8" in reason(phantoms[:7], phantoms[7:20])
    assert "5 real training patients" in reason(phantoms[:9], phantoms[9:14])
    assert "7 of the compared samples" in reason([None, None, *phantoms[:7]], phantoms[7:20])
    assert "all equal" in reason(phantoms[:9], [phantoms[0]] * 9)


def test_a_grid_of_few_cells_has_no_ms_ssim_but_the_rest(run: Run, measure, phantoms: list[np.ndarray]) -> None:
    flat = [hu[:, :, 10:14] for hu in phantoms]
    found = measure(run, flat[16:32], flat[:16])
    assert found["pair_ms_ssim"].status == "not_run" and "fewer than two scales" in found["pair_ms_ssim"].reason
    assert found["vendi"].value is not None and found["distinct_samples"].value == N


def test_bad_states_and_settings_are_named(run: Run, tmp_path: Path, phantoms: list[np.ndarray]) -> None:
    real = items(run, tmp_path, "real:train", [*phantoms[:8], phantoms[8][:, :, :20]])
    with pytest.raises(UserError, match=r"a picture of \(32, 32, 20\) for real:train-08, expected \(32, 32, 24\)"):
        scores(run, items(run, tmp_path, "samples", phantoms[20:29]), real)
    with pytest.raises(UserError, match="failed"):
        list(Diversity(DiversityConfig()).extract([Item("a", "samples", None, failed="constant")], run))
    for wrong in ({"hu_window": (5, 5)}, {"kernel_size": 4}, {"most": 8, "minimum": 9}):
        with pytest.raises(ValidationError):
            DiversityConfig.model_validate(wrong)
