"""FID: which volumes it compares, what its rows carry, and when it is not run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from medlord_bench import stats
from medlord_bench.contracts import DataProtocol, Grid, Item, Made, MetricInputs, Need, Run
from medlord_bench.contracts.metrics import protocol_of
from medlord_bench.contracts.results import Score
from medlord_bench.errors import UserError
from medlord_bench.metrics.fid.metric import FID, FIDConfig
from medlord_bench.volumes.arrays import load_state, save_state

PLANES = ("axial", "coronal", "sagittal")
D = 6
DATA = DataProtocol(
    name="toy",
    grid=Grid(shape=(64, 64, 48)),
    fit="crop-pad",
    split="by hand",
    split_sha256="0" * 64,
    counts={"train": 10, "val": 0, "test": 10},
    masks="none",
)
MakeItems = Callable[..., list[Item]]


@pytest.fixture
def items(tmp_path: Path) -> MakeItems:
    """Items of a source with random features on disk; `failed` of them without."""

    def make(source: str, n: int, shift: float = 0.0, failed: int = 0, seed: int = 0, patients: int = 0) -> list[Item]:
        made = []
        for i in range(n):
            name = f"{source.replace(':', '-')}-{seed}-{i:03d}"
            patient = f"{source}-p{i % patients}" if patients else None
            if i < failed:
                made.append(Item(name, source, None, failed="constant"))
                continue
            rng = np.random.default_rng([seed, i, len(source)])
            path = tmp_path / f"{name}.safetensors"
            state = {plane: rng.normal(shift, 1, (4, D)).astype(np.float32) for plane in PLANES}
            save_state(path, state)
            made.append(Item(name, source, path, patient=patient))
        return made

    return make


def inputs(samples: Sequence[Item], train: Sequence[Item], test: Sequence[Item]) -> MetricInputs:
    sets = {"samples": samples, "real:train": train, "real:test": test}
    by_need = {
        Need(source, Made.FEATURES, extractor="imagenet"): found for source, found in sets.items() if found is not None
    }
    return MetricInputs("noise", "toy", DATA, by_need)


def scores(run: Run, given: MetricInputs, **settings: object) -> dict[tuple[str, str, str], Score]:
    found = FID(FIDConfig.model_validate(settings)).reduce(given, run)
    return {(one.metric, one.reference, one.region): one for one in found if isinstance(one, Score)}


def pooled(chosen: Sequence[Item], plane: str) -> np.ndarray:
    return np.concatenate([load_state(item.path)[plane] for item in chosen if item.path])


def test_value_is_the_mean_over_planes_of_the_distance_of_pooled_slices(run: Run, items: MakeItems) -> None:
    samples, train, test = items("samples", 10, 0.5), items("real:train", 10), items("real:test", 10, 0.1)
    found = scores(run, inputs(samples, train, test))
    for reference, real in (("train", train), ("test", test)):
        planes = [stats.frechet_distance(pooled(samples, plane), pooled(real, plane)) for plane in PLANES]
        assert found["fid", reference, ""].value == pytest.approx(np.mean(planes))
        assert [found["fid", reference, plane].value for plane in PLANES] == pytest.approx(planes)
        floor = np.mean([stats.frechet_distance(pooled(train, plane), pooled(test, plane)) for plane in PLANES])
        assert found["fid", reference, ""].floor == pytest.approx(floor)
        assert found["fid", reference, ""].floor_n == 10


def test_interval_leaves_a_volume_out_of_all_planes_at_once(run: Run, items: MakeItems) -> None:
    samples, train, test = items("samples", 9, 0.5), items("real:train", 9), items("real:test", 9)

    def value(some: Sequence[Item], real: Sequence[Item]) -> float:
        return float(np.mean([stats.frechet_distance(pooled(some, p), pooled(real, p)) for p in PLANES]))

    without = [[value(samples[:i] + samples[i + 1 :], test) for i in range(9)]]
    without.append([value(samples, test[:i] + test[i + 1 :]) for i in range(9)])
    expected = stats.jackknife(value(samples, test), *without, squared=True)
    reach = stats.jackknife(value(samples, test), *without).high - expected.value
    found = scores(run, inputs(samples, train, test))
    main, debiased = found["fid", "test", ""], found["fid_debiased", "test", ""]
    assert (main.low, main.high) == pytest.approx((expected.low, expected.high), rel=1e-6)
    assert debiased.value == pytest.approx(expected.debiased, rel=1e-6)
    assert debiased.high - debiased.value == pytest.approx(reach, rel=1e-6)
    assert main.low <= main.value <= main.high and debiased.low <= debiased.value <= debiased.high


def test_identical_sets_are_at_zero_and_further_shifts_are_further(run: Run, items: MakeItems) -> None:
    train, test = items("real:train", 8), items("real:test", 8)
    same = scores(run, inputs(test, train, test))["fid", "test", ""]
    assert same.value == pytest.approx(0, abs=1e-6)
    values = [
        scores(run, inputs(items("samples", 8, shift, seed=k), train, test))["fid", "test", ""].value
        for k, shift in enumerate((0.0, 1.0, 2.0), start=1)
    ]
    assert values[0] < values[1] < values[2]


def test_unequal_numbers_are_cut_to_one_n_by_a_subset_that_order_does_not_change(run: Run, items: MakeItems) -> None:
    samples, train, test = items("samples", 20), items("real:train", 30), items("real:test", 9)
    found = scores(run, inputs(samples, train, test))
    again = scores(run, inputs(samples[::-1], train[::-1], test[::-1]))
    for key, score in found.items():
        assert (score.n, score.n_reference) == (9, 9)
        assert score.status == again[key].status
        assert score.value is None or score.value == pytest.approx(again[key].value, rel=1e-9)
    assert "9 of 20 samples" in found["fid", "train", ""].note_text
    assert "9 of 30 real train volumes" in found["fid", "train", ""].note_text
    other_seed = scores(run, inputs(samples, train, test), seed=1)
    assert other_seed["fid", "train", ""].value != found["fid", "train", ""].value


def test_failed_samples_count_in_n_and_the_rest_meets_as_many_real_volumes(run: Run, items: MakeItems) -> None:
    given = inputs(items("samples", 12, failed=3), items("real:train", 12), items("real:test", 12))
    found = scores(run, given)["fid", "test", ""]
    assert (found.n, found.failed, found.n_reference, found.floor_n) == (12, 3, 9, 9)


def test_failures_outside_the_measured_subset_are_said_in_the_note(run: Run, items: MakeItems) -> None:
    given = inputs(items("samples", 40, failed=20), items("real:train", 20), items("real:test", 20))
    found = scores(run, given, minimum=2)["fid", "test", ""]
    assert found.n == 20
    assert 0 < found.failed < 20
    assert "20 of all 40 samples failed" in found.note_text


def test_real_volumes_of_one_patient_are_left_out_together(run: Run, items: MakeItems) -> None:
    samples, train = items("samples", 12), items("real:train", 12)
    single = scores(run, inputs(samples, train, items("real:test", 12)))["fid", "test", ""]
    grouped = scores(run, inputs(samples, train, items("real:test", 12, patients=4)))["fid", "test", ""]
    assert grouped.value == pytest.approx(single.value)
    assert grouped.high != pytest.approx(single.high)


def test_too_few_patients_give_a_value_without_an_interval_and_say_so(run: Run, items: MakeItems) -> None:
    given = inputs(items("samples", 8), items("real:train", 8), items("real:test", 8, patients=2))
    found = scores(run, given)
    assert found["fid", "test", ""].low is None and found["fid", "test", ""].interval == ""
    assert "2 test patients" in found["fid", "test", ""].note_text
    assert found["fid_debiased", "test", ""].status == "not_run"
    assert found["fid", "train", ""].low is not None


@pytest.mark.parametrize(
    ("samples", "failed", "test", "reason"),
    [(0, 0, 9, "no unconditional samples"), (5, 0, 9, "5 samples"), (10, 4, 9, "samples failed"), (9, 9, 9, "9 of 9")],
)
def test_too_few_samples_are_not_run_with_the_reason(
    run: Run, items: MakeItems, samples: int, failed: int, test: int, reason: str
) -> None:
    given = inputs(items("samples", samples, failed=failed), items("real:train", 9), items("real:test", test))
    found = scores(run, given)
    assert {score.status for score in found.values()} == {"not_run"}
    assert {score.value for score in found.values()} == {None}
    assert reason in found["fid", "test", ""].reason


def test_a_small_test_split_is_not_run_and_leaves_train_its_n(run: Run, items: MakeItems) -> None:
    found = scores(run, inputs(items("samples", 12), items("real:train", 20), items("real:test", 3)))
    assert "3 real test volumes" in found["fid", "test", ""].reason
    train = found["fid", "train", ""]
    assert (train.n, train.floor) == (12, None)
    assert "no floor: 3 real test volumes" in train.floor_note


def test_constant_features_give_a_finite_value(run: Run, items: MakeItems, tmp_path: Path) -> None:
    constant = []
    for i in range(8):
        save_state(tmp_path / f"c{i}", {plane: np.ones((4, D), np.float32) for plane in PLANES})
        constant.append(Item(f"c{i}", "samples", tmp_path / f"c{i}"))
    found = scores(run, inputs(constant, items("real:train", 8), items("real:test", 8)))["fid", "test", ""]
    assert found.value is not None and np.isfinite([found.value, found.low, found.high]).all()


def test_features_that_are_not_there_or_not_finite_are_named(run: Run, items: MakeItems, tmp_path: Path) -> None:
    samples = items("samples", 8)
    save_state(tmp_path / "bad", {plane: np.full((4, D), np.nan, np.float32) for plane in PLANES})
    samples[3] = Item("bad", "samples", tmp_path / "bad")
    with pytest.raises(UserError, match="bad: no finite"):
        scores(run, inputs(samples, items("real:train", 8), items("real:test", 8)))


def test_protocol_id_changes_with_everything_that_makes_values_incomparable() -> None:
    def id(data: DataProtocol = DATA, **settings: object) -> str:
        return protocol_of("fid", FID(FIDConfig.model_validate(settings)), data)[0]

    ids = [
        id(),
        id(hu_window=(-1000, 2000)),
        id(features={"slices": 16}),
        id(planes=("axial",)),
        id(DATA.model_copy(update={"split_sha256": "1" * 64})),
    ]
    assert len(set(ids)) == len(ids)
    assert ids[0].startswith("fid-fixed-window-") and ids[0] == id()


def test_the_window_reaches_the_extractor_and_the_note_names_the_backbone(run: Run, items: MakeItems) -> None:
    text = FID(FIDConfig(hu_window=(-900, 900))).protocol(DATA).text
    assert text["extractor"]["preprocessing"]["hu_window"] == [-900, 900]
    given = inputs(items("samples", 8), items("real:train", 8), items("real:test", 8))
    note = scores(run, given)["fid", "test", ""].note_text
    assert "EfficientNet-lite0" in note and "not RadImageNet" in note
