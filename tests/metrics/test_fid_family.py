"""What stands beside FID: KID, FID-infinity, precision to coverage, replicates for paired tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from medlord_bench import stats
from medlord_bench.contracts import DataProtocol, Grid, Item, Made, MetricInputs, Need, Run
from medlord_bench.contracts.results import Replicates, Score
from medlord_bench.errors import UserError
from medlord_bench.metrics.fid import sides
from medlord_bench.metrics.fid.kernel import Kernels
from medlord_bench.metrics.fid.metric import FID, FIDConfig
from medlord_bench.volumes.arrays import load_state, save_state

PLANES = ("axial", "coronal", "sagittal")
D, SLICES, N = 5, 3, 16
DATA = DataProtocol(
    name="toy",
    grid=Grid(shape=(64, 64, 48)),
    fit="crop-pad",
    split="by hand",
    split_sha256="0" * 64,
    counts={"train": N, "val": 0, "test": N},
    masks="none",
)
MakeItems = Callable[..., list[Item]]
Found = dict[tuple[str, str, str], Score]


@pytest.fixture
def items(tmp_path: Path) -> MakeItems:
    """Items with features on disk: every volume has a place of its own, and slices about it."""

    def make(source: str, n: int, shift: float = 0.0, seed: int = 0, patients: int = 0, failed: int = 0) -> list[Item]:
        made = [Item(f"{source}-failed-{i}", source, None, failed="constant") for i in range(failed)]
        for i in range(n - failed):
            rng = np.random.default_rng([seed, i, len(source)])
            centre = rng.normal(shift, 1, D)
            path = tmp_path / f"{source.replace(':', '-')}-{seed}-{i:03d}"
            save_state(path, {plane: (centre + rng.normal(0, 1, (SLICES, D))).astype(np.float32) for plane in PLANES})
            made.append(Item(path.name, source, path, patient=f"{source}-p{i % patients}" if patients else None))
        return made

    return make


def reduced(
    run: Run, samples: Sequence[Item], train: Sequence[Item], test: Sequence[Item], **settings: object
) -> tuple[Found, list[Replicates]]:
    needs = {"samples": samples, "real:train": train, "real:test": test}
    extractor = FIDConfig.model_validate(settings).extractor
    given = MetricInputs(
        "noise", "toy", DATA, {Need(k, Made.FEATURES, extractor=extractor): v for k, v in needs.items()}
    )
    found = list(FID(FIDConfig.model_validate(settings)).reduce(given, run))
    scores = {(one.metric, one.reference, one.region): one for one in found if isinstance(one, Score)}
    return scores, [one for one in found if isinstance(one, Replicates)]


def features(item: Item, plane: str) -> np.ndarray:
    assert item.path is not None
    return load_state(item.path)[plane].astype(np.float64)


# ------------------------------------------------------------------------------------------------------------- KID
def kid(x: Sequence[Item], y: Sequence[Item], planes: Sequence[str] = PLANES) -> float:
    """The definition, pair of volumes by pair of volumes."""

    def k(a: Item, b: Item) -> float:
        products = [features(a, plane) @ features(b, plane).T for plane in planes]
        return float(np.mean([((product / D + 1) ** 3).mean() for product in products]))

    same = [np.mean([k(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j]) for s in (x, y)]
    return float(sum(same) - 2 * np.mean([k(a, b) for a in x for b in y]))


def test_kid_is_its_definition_by_volume_with_the_floor_of_the_same_volumes(run: Run, items: MakeItems) -> None:
    samples, train, test = items("samples", 8, 0.5), items("real:train", 8), items("real:test", 8)
    found, _ = reduced(run, samples, train, test)
    for reference, real in (("train", train), ("test", test)):
        assert found["kid", reference, ""].value == pytest.approx(kid(samples, real), rel=1e-6)
        assert found["kid", reference, "axial"].value == pytest.approx(kid(samples, real, ["axial"]), rel=1e-6)
        assert found["kid", reference, ""].floor == pytest.approx(kid(train, test), rel=1e-6)
        assert found["kid", reference, ""].floor_n == 8


def test_kid_leaves_volumes_out_of_all_planes_at_once(run: Run, items: MakeItems) -> None:
    samples, train, test = items("samples", 8, 0.5), items("real:train", 8), items("real:test", 8)
    found, replicates = reduced(run, samples, train, test)
    (one,) = (r for r in replicates if (r.metric, r.reference, r.region) == ("kid", "test", ""))
    for i in (0, 7):
        assert one.samples[samples[i].id] == pytest.approx(kid(samples[:i] + samples[i + 1 :], test), rel=1e-6)
        assert one.real[test[i].id] == pytest.approx(kid(samples, test[:i] + test[i + 1 :]), rel=1e-6)
    expected = stats.jackknife(one.value, list(one.samples.values()), list(one.real.values()))
    score = found["kid", "test", ""]
    assert (score.low, score.high) == pytest.approx((expected.low, expected.high), rel=1e-6)


class InMemory:
    """Features of random volumes whose planes all tell the same story."""

    planes = PLANES

    def __init__(self, seed: int, shift: float = 0.0) -> None:
        rng = np.random.default_rng(seed)
        self.sets = {name: rng.normal(0, 1, (8, SLICES, D)) for name in ("train", "test")}
        self.sets["samples"] = rng.normal(shift, 1, (8, SLICES, D))

    def units(self, name: str) -> list[str]:
        return [f"{name}-{i}" for i in range(8)]

    def groups(self, name: str, plane: str) -> list[np.ndarray]:
        return list(self.sets[name])


def test_kid_p_relabels_volumes_of_all_planes_at_once() -> None:
    """Three planes that tell the same story must not make a difference three times as significant."""

    def p(seed: int, shift: float = 0.0, permutations: int = 199) -> float:
        kernels = Kernels(InMemory(seed, shift), FIDConfig(permutations=permutations))  # type: ignore[arg-type]
        return kernels.between("", "samples", "test").p

    small = sum(p(seed) <= 0.1 for seed in range(100))
    assert 2 <= small <= 20  # of 100 under the null: outside with probability 0.2 %
    assert p(0, 2.0, 2000) < 0.005


def test_kid_carries_its_p_value_and_says_of_what(run: Run, items: MakeItems) -> None:
    found, _ = reduced(run, items("samples", 8, 2.0), items("real:train", 8), items("real:test", 8))
    for region in ("", *PLANES):
        assert found["kid", "test", region].p == pytest.approx(1 / 2001, abs=2e-3)
        assert "2000 relabellings" in found["kid", "test", region].p_of
    assert found["fid", "test", ""].p is None


def test_kid_of_too_few_patients_is_not_run_while_fid_has_its_value(run: Run, items: MakeItems) -> None:
    found, _ = reduced(run, items("samples", 9), items("real:train", 9), items("real:test", 9, patients=3))
    assert found["fid", "test", ""].status == "ok"
    assert found["kid", "test", ""].status == "not_run"
    assert "3 test patients" in found["kid", "test", ""].reason
    train = found["kid", "train", ""]
    assert train.status == "ok" and train.floor is None
    assert train.floor_note == "no floor: 9 samples and 3 test patients, at least 4 of each are needed"


# ---------------------------------------------------------------------------------------------------- FID-infinity
def test_fid_infinity_is_near_zero_for_one_distribution_where_fid_is_not(run: Run, items: MakeItems) -> None:
    several = []
    for seed in (3, 4, 5):
        sets = [items(source, 48, seed=seed) for source in ("samples", "real:train", "real:test")]
        found, _ = reduced(run, *sets, permutations=99)
        several.append((found["fid", "test", ""].value, found["fid_infinity", "test", ""].value))
    assert abs(np.mean([far for _, far in several])) < np.mean([fid for fid, _ in several]) / 2
    fid, extrapolated = several[-1][0], found["fid_infinity", "test", ""]
    planes = [found["fid_infinity", "test", plane].value for plane in PLANES]
    assert extrapolated.value == pytest.approx(np.mean([value for value in planes if value is not None]))
    assert "extrapolated" in extrapolated.note_text and extrapolated.low is None
    assert "4 random divisions alone" in extrapolated.note_text
    sizes, distances = zip(*extrapolated.points, strict=True)
    assert sizes == (48, 32, 24)
    assert distances[0] == pytest.approx(fid), "the distance of all volumes is the FID"
    assert np.polyfit(1 / np.array(sizes), distances, 1)[1] == pytest.approx(extrapolated.value)


# ------------------------------------------------------------------------------------------------ precision, recall
def counted(x: np.ndarray, y: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of y lies in how many balls of x, and which ball of x holds any of y; by loops over pairs."""
    reach = [sorted(np.linalg.norm(x - a, axis=1))[k] for a in x]
    holds = np.array([[np.linalg.norm(a - b) <= r for b in y] for a, r in zip(x, reach, strict=True)])
    return holds.sum(0), holds.any(1)


def vectors(some: Sequence[Item]) -> np.ndarray:
    return np.stack([np.concatenate([features(item, plane).mean(0) for plane in PLANES]) for item in some])


def test_the_four_shares_are_counted_on_one_vector_a_volume(run: Run, items: MakeItems) -> None:
    samples, train, test = items("samples", N, 0.4), items("real:train", N), items("real:test", N)
    found, _ = reduced(run, samples, train, test, neighbours=2)
    for name, x, y in (("test", test, samples), ("train", train, samples)):
        inside, covered = counted(vectors(x), vectors(y), 2)
        recalled, _ = counted(vectors(y), vectors(x), 2)
        got = {metric: found[metric, name, ""].value for metric in ("precision", "recall", "density", "coverage")}
        expected = {"precision": (inside > 0).mean(), "recall": (recalled > 0).mean()}
        expected |= {"density": inside.mean() / 2, "coverage": covered.mean()}
        assert got == pytest.approx(expected)
    floor, _ = counted(vectors(test), vectors(train), 2)
    assert found["precision", "test", ""].floor == pytest.approx((floor > 0).mean())


def test_shares_have_wilson_intervals_and_say_what_these_ignore(run: Run, items: MakeItems) -> None:
    found, _ = reduced(run, items("samples", N, 0.4), items("real:train", N), items("real:test", N))
    for metric in ("precision", "recall", "coverage"):
        score = found[metric, "test", ""]
        assert score.value is not None
        assert (score.low, score.high) == pytest.approx(stats.wilson(round(score.value * N), N))
        assert "treated as fixed" in score.interval and "k = 3" in score.note_text
    assert found["density", "test", ""].low is None


def test_volumes_of_one_patient_are_not_each_others_neighbours(run: Run, items: MakeItems) -> None:
    """Two scans of each patient halve the balls; one is taken, and as many samples."""
    real = items("real:test", 2 * N, patients=N)
    found, _ = reduced(run, items("samples", 2 * N), items("real:train", 2 * N), real)
    one_each, _ = reduced(run, items("samples", 2 * N)[:N], items("real:train", N), real[:N])
    score = found["recall", "test", ""]
    assert score.n_reference == N
    assert score.value == one_each["recall", "test", ""].value


def test_a_collapsed_generator_has_precision_without_recall(run: Run, items: MakeItems, tmp_path: Path) -> None:
    train, test = items("real:train", N), items("real:test", N)
    collapsed = []
    for i in range(N):
        state = {plane: features(test[0], plane).astype(np.float32) + np.float32(1e-3 * i) for plane in PLANES}
        save_state(tmp_path / f"same-{i:02d}", state)
        collapsed.append(Item(f"same-{i:02d}", "samples", tmp_path / f"same-{i:02d}"))
    found, _ = reduced(run, collapsed, train, test)
    assert found["precision", "test", ""].value == 1.0
    assert found["recall", "test", ""].value < 0.2 and found["coverage", "test", ""].value < 0.6


def test_what_needs_more_volumes_than_there_are_is_not_run_with_the_reason(run: Run, items: MakeItems) -> None:
    found, _ = reduced(run, items("samples", N - 1), items("real:train", N - 1), items("real:test", N - 1))
    for metric, least in {"fid_infinity": 16, "precision": 16, "recall": 16, "density": 16, "coverage": 16}.items():
        score = found[metric, "test", ""]
        assert (score.status, score.value) == ("not_run", None)
        assert f"15 samples and 15 test patients, at least {least}" in score.reason
    assert found["fid", "test", ""].status == "ok"


# ------------------------------------------------------------------------------------- against the MAISI script's own
@pytest.mark.slow  # importing MONAI takes most of ten seconds
def test_planes_and_their_mean_are_what_monais_fid_makes_of_pooled_slices(run: Run, items: MakeItems) -> None:
    """The MAISI script scores each plane's pooled slices with MONAI's FIDMetric and averages the three."""
    torch, fid = pytest.importorskip("torch"), pytest.importorskip("monai.metrics.fid")
    samples, train, test = items("samples", 9, 0.5), items("real:train", 9), items("real:test", 9)
    found, _ = reduced(run, samples, train, test)
    planes = []
    for plane in PLANES:
        pooled = (torch.from_numpy(np.concatenate([features(i, plane) for i in side])) for side in (samples, test))
        planes.append(float(fid.get_fid_score(*pooled)))
        assert found["fid", "test", plane].value == pytest.approx(planes[-1], rel=1e-6)
    assert found["fid", "test", ""].value == pytest.approx(np.mean(planes), rel=1e-6)


# ------------------------------------------------------------------------------------------ replicates and failures
def test_replicates_hold_fid_without_each_sample_and_each_patient(run: Run, items: MakeItems) -> None:
    samples, train, test = items("samples", 8, 0.5), items("real:train", 8), items("real:test", 8, patients=4)
    found, replicates = reduced(run, samples, train, test)
    expected = {(m, s, r) for m in ("fid", "kid") for s in ("train", "test") for r in ("", *PLANES)}
    assert {(one.metric, one.reference, one.region) for one in replicates} == expected
    by_name = {(one.metric, one.reference, one.region): one for one in replicates}

    def fid(some: Sequence[Item], real: Sequence[Item], plane: str) -> float:
        pooled = (np.concatenate([features(item, plane) for item in side]) for side in (some, real))
        return stats.frechet_distance(*pooled)

    axial, mean = by_name["fid", "test", "axial"], by_name["fid", "test", ""]
    assert axial.value == found["fid", "test", "axial"].value
    assert axial.samples[samples[2].id] == pytest.approx(fid(samples[:2] + samples[3:], test, "axial"), rel=1e-6)
    without = [item for item in test if item.patient != "real:test-p1"]
    assert axial.real["real:test-p1"] == pytest.approx(fid(samples, without, "axial"), rel=1e-6)
    planes = [by_name["fid", "test", plane].real["real:test-p1"] for plane in PLANES]
    assert mean.real["real:test-p1"] == pytest.approx(np.mean(planes))
    assert set(mean.samples) == {item.id for item in samples} and set(mean.real) == {
        f"real:test-p{i}" for i in range(4)
    }


def test_one_odd_volume_that_decides_an_interval_is_named_with_a_wider_interval(run: Run, items: MakeItems) -> None:
    train, test = items("real:train", 12), items("real:test", 12)
    samples = items("samples", 12, 0.5)
    odd = {plane: features(samples[4], plane).astype(np.float32) + np.float32(30) for plane in PLANES}
    before, _ = reduced(run, samples, train, test)
    assert samples[4].path is not None
    save_state(samples[4].path, odd)
    found, _ = reduced(run, samples, train, test)
    for metric in ("fid", "kid"):
        assert "heavy tails" not in before[metric, "test", ""].note_text
        assert f"of one volume or patient, {samples[4].id} " in found[metric, "test", ""].note_text


def test_two_generators_share_the_patients_they_are_paired_on(run: Run, items: MakeItems) -> None:
    train, test = items("real:train", 20), items("real:test", 10)
    ids = []
    for seed in (1, 2):
        _, replicates = reduced(run, items("samples", 12, seed=seed), train, test)
        ids.append([set(one.real) for one in replicates])
    assert ids[0] == ids[1]


def test_failed_samples_count_in_every_n_of_the_family(run: Run, items: MakeItems) -> None:
    found, _ = reduced(run, items("samples", 28, failed=3), items("real:train", 28), items("real:test", 28))
    for metric in ("fid", "kid", "fid_infinity", "precision", "coverage"):
        score = found[metric, "test", ""]
        assert (score.n, score.failed, score.n_reference) == (28, 3, 25)


# ------------------------------------------------------------------------------------------------------- bad input
def test_a_ball_that_would_hold_half_of_its_set_is_refused() -> None:
    with pytest.raises(ValidationError, match="prdc_minimum: at least 22 for 10 neighbours"):
        FIDConfig(neighbours=10)


def test_features_of_another_extractor_are_named_on_either_side(run: Run, items: MakeItems, tmp_path: Path) -> None:
    samples = items("samples", 8)
    save_state(tmp_path / "z-other", {plane: np.ones((SLICES, D + 1), np.float32) for plane in PLANES})
    samples[5] = Item("z-other", "samples", tmp_path / "z-other")
    with pytest.raises(UserError, match=r"z-other: features of 6 dimensions, .* one extractor on both sides"):
        reduced(run, samples, items("real:train", 8), items("real:test", 8))


def test_each_features_file_is_read_once(run: Run, items: MakeItems, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(sides, "load_state", lambda path: read.append(path) or load_state(path))
    reduced(run, items("samples", N), items("real:train", N), items("real:test", N))
    assert len(read) == len(set(read)) == 3 * N


@pytest.mark.parametrize(("neighbours", "least", "ok"), [(0, 16, False), (1, 4, True), (3, 8, True), (3, 7, False)])
def test_a_ball_holds_less_than_half_of_its_own_set(neighbours: int, least: int, ok: bool) -> None:
    """One neighbour or more, and twice as many volumes as a ball has with its centre."""
    if ok:
        assert FIDConfig(neighbours=neighbours, prdc_minimum=least).neighbours == neighbours
        return
    with pytest.raises(ValidationError):
        FIDConfig(neighbours=neighbours, prdc_minimum=least)
