"""PSNR and MS-SSIM of reconstructions against closed forms and MONAI's own class."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import ndimage

from medlord_bench.contracts import DataProtocol, Grid, Item, MetricInputs, Run
from medlord_bench.contracts.metrics import protocol_of
from medlord_bench.contracts.results import CaseRow, Score
from medlord_bench.errors import UserError
from medlord_bench.metrics.reconstruction import similarity
from medlord_bench.metrics.reconstruction.metric import NEED, Reconstruction, ReconstructionConfig
from medlord_bench.volumes.arrays import save_state
from medlord_bench.volumes.scales import SCALE_WEIGHTS, scale_weights

DATA = DataProtocol(
    name="toy",
    grid=Grid(shape=(48, 48, 48)),
    fit="crop-pad",
    split="by hand",
    split_sha256="0" * 64,
    counts={"train": 10, "val": 0, "test": 10},
    masks="none",
)
METRIC = Reconstruction(ReconstructionConfig())


def phantom(seed: int = 0, side: int = 48) -> np.ndarray:
    """A smooth cylinder of soft tissue with two air holes that reach the ends, in air. int16 (side, side, side)."""
    x, y = np.meshgrid(*[np.linspace(-1, 1, side)] * 2, indexing="ij")
    hu = np.where(x**2 + y**2 < 0.8, 40.0, -1000.0)
    for centre in (-0.4, 0.4):
        hu[(x - centre) ** 2 + y**2 < 0.05] = -850
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 300, (side, side, side)), 1)
    return (hu[:, :, None] + noise).clip(-1024, 2000).astype(np.int16)


def items_of(tmp_path: Path, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Item]:
    made = []
    for i, (reconstruction, real) in enumerate(pairs):
        np.save(tmp_path / f"made{i}.npy", reconstruction)
        np.save(tmp_path / f"real{i}.npy", real)
        made.append(Item(f"c{i}", "reconstructions", tmp_path / f"made{i}.npy", reference=tmp_path / f"real{i}.npy"))
    return made


def reduced(run: Run, items: Sequence[Item], states: Sequence[dict[str, np.ndarray] | None]) -> tuple[dict, list]:
    """Scores by (metric, region) and rows of items whose states are given (None: failed)."""
    kept = []
    for item, state in zip(items, states, strict=True):
        path = None
        if state is not None:
            path = run.scratch / f"{item.id}.safetensors"
            save_state(path, state)
        kept.append(dataclasses.replace(item, path=path))
    found = list(METRIC.reduce(MetricInputs("toy", "toy", DATA, {NEED: kept}), run))
    return {(s.metric, s.region): s for s in found if isinstance(s, Score)}, [
        r for r in found if isinstance(r, CaseRow)
    ]


def state(mse: float, ms_ssim: float = 0.9) -> dict[str, np.ndarray]:
    return {"mse": np.array([mse, mse / 2]), "ms_ssim": np.array([ms_ssim, ms_ssim])}


def test_psnr_of_a_constant_error_is_its_closed_form(run: Run, tmp_path: Path) -> None:
    real = phantom()
    items = items_of(tmp_path, [(real.clip(-900, 1900) + np.int16(30), real.clip(-900, 1900))])
    scores, rows = reduced(run, items, list(METRIC.extract(items, run)))
    expected = 20 * np.log10(3000 / 30)
    assert scores["psnr", ""].value == pytest.approx(expected, rel=1e-12)
    assert scores["psnr", "body"].value == pytest.approx(expected, rel=1e-12)
    assert {(row.metric, row.region) for row in rows} == {(m, r) for m in ("psnr", "ms_ssim") for r in ("", "body")}


def test_errors_outside_the_window_do_not_count_and_those_outside_the_body_not_in_the_body(run: Run) -> None:
    real = phantom().clip(-1000, 2000)
    below = np.where(real <= -1000, -1024, real).astype(np.int16)
    assert similarity.mean_squared_error(below, real, (-1000, 2000), None) == 0
    body = similarity.body_mask(real, -500)
    in_air = np.where(body, real, real + 100).astype(np.int16)
    found = similarity.compare(in_air, real, (-1000, 2000), 3, 1.5, -500, "cpu")
    assert found["mse"][0] == pytest.approx(1e4 * (~body).mean()) and found["mse"][1] == 0


@pytest.mark.parametrize("shape", [(64, 64, 48), (48, 70, 51)])
def test_ms_ssim_of_the_whole_is_monais(shape: tuple[int, int, int]) -> None:
    from monai.metrics.regression import MultiScaleSSIMMetric

    real = torch.from_numpy(phantom(0, 72).astype(np.float32))[: shape[0], : shape[1], : shape[2]].add(1000).div(3000)
    made = (real + 0.05 * torch.randn(shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    monai = MultiScaleSSIMMetric(spatial_dims=3, kernel_size=3, kernel_sigma=1.5, data_range=1.0)
    expected = monai(made[None, None], real[None, None]).item()
    whole, everywhere = similarity.ms_ssim(made, real, np.ones(shape, dtype=bool), 3, 1.5)
    assert whole == pytest.approx(expected, abs=1e-5)
    assert everywhere == pytest.approx(whole, abs=1e-9)


def test_ms_ssim_in_the_body_sees_less_of_an_error_in_the_air_than_the_whole_does() -> None:
    real = phantom(side=64)
    air = ~ndimage.binary_dilation(similarity.body_mask(real, -500), iterations=4)
    noisy = np.where(air, real + np.random.default_rng(1).normal(300, 300, real.shape), real).astype(np.int16)
    clean = similarity.compare(real, real, (-1000, 2000), 3, 1.5, -500, "cpu")["ms_ssim"]
    found = similarity.compare(noisy, real, (-1000, 2000), 3, 1.5, -500, "cpu")["ms_ssim"]
    assert clean == pytest.approx([1, 1])
    assert found[0] < 0.99 and 1 - found[1] < (1 - found[0]) / 4


def test_ms_ssim_falls_with_noise() -> None:
    real = phantom()
    noise = np.random.default_rng(1).normal(0, 1, real.shape)
    values = [
        similarity.compare((real + size * noise).astype(np.int16), real, (-1000, 2000), 3, 1.5, -500, "cpu")["ms_ssim"]
        for size in (10, 50, 200)
    ]
    assert values[0][0] > values[1][0] > values[2][0] and values[0][1] > values[1][1] > values[2][1]


def test_slabs_change_nothing_but_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    real = phantom()
    made = (real + np.random.default_rng(1).normal(0, 80, real.shape)).astype(np.int16)
    whole = similarity.compare(made, real, (-1000, 2000), 3, 1.5, -500, "cpu")["ms_ssim"]
    monkeypatch.setattr(similarity, "SLAB_PLANES", 5)
    slabs = similarity.compare(made, real, (-1000, 2000), 3, 1.5, -500, "cpu")["ms_ssim"]
    np.testing.assert_allclose(slabs, whole, rtol=1e-6)


def test_scales_that_do_not_fit_are_left_out_and_the_rest_weigh_one() -> None:
    assert scale_weights(48, 3) == pytest.approx(SCALE_WEIGHTS, rel=1e-3)
    assert [len(scale_weights(side, 3)) for side in (48, 47, 24, 23, 12, 6, 5)] == [5, 4, 4, 3, 3, 2, 0]
    assert sum(scale_weights(30, 3)) == pytest.approx(1)
    small = Grid(shape=(64, 64, 32))
    assert (
        protocol_of("reconstruction", METRIC, DATA.model_copy(update={"grid": small}))[0]
        != protocol_of("reconstruction", METRIC, DATA)[0]
    )


def test_a_body_at_the_side_of_a_patch_has_a_value() -> None:
    """A third of a patch, along one side: at the coarsest scale no voxel is body for the most part."""
    rng = np.random.default_rng(0)
    real = np.full((48, 48, 48), 0.1, np.float32) + rng.normal(0, 0.01, (48, 48, 48)).astype(np.float32)
    body = np.zeros(real.shape, bool)
    body[:10] = body[:, :8] = True
    real[body] += 0.5
    made = real + rng.normal(0, 0.02, real.shape).astype(np.float32)
    whole, inside = similarity.ms_ssim(torch.from_numpy(made), torch.from_numpy(real), body, 3, 1.5)
    assert 0 < inside <= 1 and np.isfinite(whole)
    _, everywhere = similarity.ms_ssim(torch.from_numpy(made), torch.from_numpy(real), np.ones_like(body), 3, 1.5)
    assert everywhere == pytest.approx(whole, rel=1e-6), "where all is body, the body is the whole"


def test_body_is_the_largest_component_with_its_lungs() -> None:
    real = phantom()
    real[:3, :3, :3] = 300  # a table
    body = similarity.body_mask(real, -500)
    assert body[14, 24, 20] and body[24, 24, 0], "lung and tissue are body, though the lung reaches the ends"
    assert not body[1, 1, 1] and not body[0, 24, 20]


def test_median_interval_and_iqr_over_cases(run: Run) -> None:
    items = [Item(f"c{i}", "reconstructions", None) for i in range(7)]
    scores, _ = reduced(run, items, [state(3000**2 / 10 ** (psnr / 10)) for psnr in range(20, 27)])
    score = scores["psnr", ""]
    assert (score.value, score.low, score.high) == pytest.approx((23, 20, 26))
    assert (score.n, score.failed) == (7, 0)
    assert score.interval == "95 % order statistics of the median of 7 patients"
    assert "IQR 21.5 to 24.5" in score.note_text and score.quartiles == pytest.approx((21.5, 24.5))


def test_failed_cases_rank_last_and_stay_in_n(run: Run) -> None:
    items = [Item(f"c{i}", "reconstructions", None) for i in range(5)]
    psnrs = [3000**2 / 10 ** (psnr / 10) for psnr in (30, 31, 32)]
    scores, rows = reduced(run, items, [*map(state, psnrs), None, None])
    assert (scores["psnr", ""].n, scores["psnr", ""].failed) == (5, 2)
    assert scores["psnr", ""].value == pytest.approx(30)
    assert len(rows) == 3 * 4
    scores, rows = reduced(run, items, [None] * 5)
    assert {score.status for score in scores.values()} == {"not_run"} and not rows
    assert "5 of 5 cases failed" in scores["ms_ssim", "body"].reason


def test_identical_images_are_said_and_poison_nothing(run: Run) -> None:
    items = [Item(f"c{i}", "reconstructions", None) for i in range(3)]
    mses = [0.0, 3000**2 / 1e3, 3000**2 / 1e4]
    scores, rows = reduced(run, items, [state(mse) for mse in mses])
    assert scores["psnr", ""].value == pytest.approx(40)
    assert "1 cases equal their image" in scores["psnr", ""].note_text
    assert all(np.isfinite(row.value) for row in rows)
    scores, _ = reduced(run, items, [state(0.0)] * 3)
    assert scores["psnr", ""].status == "not_run" and "infinite" in scores["psnr", ""].reason
    assert scores["ms_ssim", ""].status == "ok"


def test_cases_of_one_patient_count_once_in_the_interval(run: Run) -> None:
    items = [Item(f"c{i}", "reconstructions", None, patient=f"p{i % 3}") for i in range(9)]
    scores, rows = reduced(run, items, [state(3000**2 / 10 ** ((20 + i % 3) / 10)) for i in range(9)])
    assert {row.patient for row in rows} == {"p0", "p1", "p2"}, "comparisons between generators pair patients"
    assert scores["psnr", ""].value == pytest.approx(21)
    assert (
        scores["psnr", ""].low is None
        and scores["psnr", ""].interval == ""
        and "3 patients, at least 6" in scores["psnr", ""].note_text
    )
    assert scores["psnr", ""].n == 9


def test_a_grid_too_small_for_two_scales_has_psnr_and_no_ms_ssim(run: Run, tmp_path: Path) -> None:
    real = phantom()[:5, 20:25, 20:25]
    items = items_of(tmp_path, [(real + np.int16(5), real)])
    scores, _ = reduced(run, items, list(METRIC.extract(items, run)))
    assert scores["psnr", ""].status == "ok" and scores["ms_ssim", ""].status == "not_run"


def test_an_image_without_a_body_has_no_value_there(run: Run, tmp_path: Path) -> None:
    real = np.full((48, 48, 48), -1000, np.int16)
    items = items_of(tmp_path, [(real + np.int16(5), real)])
    scores, _ = reduced(run, items, list(METRIC.extract(items, run)))
    assert scores["psnr", ""].status == "ok" and scores["psnr", "body"].status == "not_run"


def test_a_generator_without_reconstructions_is_not_run(run: Run) -> None:
    found = list(METRIC.reduce(MetricInputs("noise", "toy", DATA, {}), run))
    assert [score.status for score in found if isinstance(score, Score)] == ["not_run", "not_run"]


def test_other_grids_and_lost_references_are_named(run: Run, tmp_path: Path) -> None:
    items = items_of(tmp_path, [(phantom(), phantom(side=50))])
    with pytest.raises(UserError, match=r"made0.npy: grid \(48, 48, 48\)"):
        list(METRIC.extract(items, run))
    with pytest.raises(UserError, match="case c0: no real image"):
        list(METRIC.extract([dataclasses.replace(items[0], reference=None)], run))


@pytest.mark.parametrize(
    ("shape", "scales"), [((48, 96, 200), 5), ((200, 47, 96), 4), ((96, 96, 12), 3), ((96, 96, 6), 2), ((9, 5, 9), 0)]
)
def test_the_protocol_names_the_scales_that_fit_the_smallest_side(shape: tuple[int, int, int], scales: int) -> None:
    """Five need 16 times the kernel of 3 voxels, four 8 times, and so on; fewer than two are none."""
    text = protocol_of("reconstruction", METRIC, DATA.model_copy(update={"grid": Grid(shape=shape)}))[1]
    assert len(text["ms_ssim_scale_weights"]) == scales


@pytest.mark.parametrize("settings", [{"hu_window": (100, -100)}, {"kernel_size": 4}, {"data_range": 1}])
def test_bad_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ReconstructionConfig.model_validate(settings)
