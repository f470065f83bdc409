"""Regional volume ratios through extract, states and reduce: known counts, known faults, and what is not run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import save_file
from scipy import stats as scipy_stats

from medlord_bench.contracts import DataProtocol, Grid, Item, LabelMap, MetricInputs, Run
from medlord_bench.contracts.metrics import protocol_of
from medlord_bench.contracts.results import CaseRow, Replicates, Score
from medlord_bench.errors import UserError
from medlord_bench.metrics.rvr import distances, volumes
from medlord_bench.metrics.rvr.metric import RVR, RVRConfig
from medlord_bench.plugins.datasets.phantom.dataset import PhantomConfig, PhantomDataset
from medlord_bench.plugins.segmenters.files.segmenter import FilesConfig, FilesSegmenter
from medlord_bench.volumes.arrays import save_state
from medlord_bench.volumes.io import write_labels

NAMES = {1: "aorta", 2: "left_atrium"}
TOTAL = 1000
SPACING = (1.0, 2.0, 2.5)  # 5 mm^3: 200 voxels are 1 mL
DATA = DataProtocol(
    name="toy",
    grid=Grid(shape=(10, 10, 10)),
    fit="crop-pad",
    split="by hand",
    split_sha256="0" * 64,
    counts={"train": 24, "val": 0, "test": 12},
    masks="dataset",
    segmenter="files",
    rvr_regions=("aorta", "left_atrium"),
)
Voxels = Sequence[Sequence[int] | None]  # per case, of each region; None where it failed


def metric(data: DataProtocol = DATA, names: Mapping[int, str] = NAMES, **settings: Any) -> RVR:
    settings.setdefault("segmenter_settings", {"label_names": dict(names)})
    return RVR(RVRConfig(**{"permutations": 199, **settings}).for_data(data))


def drawn(n: int, seed: int, mean: tuple[float, float] = (200, 100), spread: float = 0.15) -> Voxels:
    """Voxels of two correlated regions, log-normal."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0, 1, (n, 1))
    factors = np.exp(spread * (0.6 * common + 0.8 * rng.normal(0, 1, (n, 2))))
    return np.rint(np.array(mean) * factors).astype(int).tolist()


class Bench:
    """Counts of voxels to scores, through states on disk as in a run."""

    def __init__(self, run: Run, folder: Path, metric: RVR, data: DataProtocol = DATA) -> None:
        self.run, self.folder, self.metric, self.data = run, folder, metric, data

    def items(self, source: str, cases: Voxels, spacing: Any = SPACING, patients: Sequence[str] = ()) -> list[Item]:
        kept = []
        for i, voxels in enumerate(cases):
            patient = None if source == "samples" else patients[i] if patients else f"{source}-p{i}"
            failed, path = "constant (0 HU)", None
            if voxels is not None:
                failed, path = None, self.folder / source.replace(":", "-") / f"{i}.safetensors"
                size = np.nan if spacing is None else np.prod(spacing)
                state = {"voxels": np.array(voxels), "total": np.array([TOTAL]), "voxel_mm3": np.array([size])}
                path.parent.mkdir(exist_ok=True)
                save_file(state, path)  # as save_state, without waiting for the disk
            kept.append(Item(f"{source}-{i:03d}", source, path, patient=patient, failed=failed, spacing=spacing))
        return kept

    def reduce(self, items: Mapping[str, Sequence[Item]]) -> tuple[dict, list[CaseRow], dict[str, Replicates]]:
        """Scores by (metric, region, reference), rows, and replicates by reference."""
        needs = {need.source: need for need in self.metric.needs()}
        inputs = MetricInputs("toy", "toy", self.data, {needs[source]: found for source, found in items.items()})
        found = list(self.metric.reduce(inputs, self.run))
        scores = [one for one in found if isinstance(one, Score)]
        assert len({(s.metric, s.region, s.reference) for s in scores}) == len(scores)
        replicates = {one.reference: one for one in found if isinstance(one, Replicates)}
        rows = [one for one in found if isinstance(one, CaseRow)]
        return {(s.metric, s.region, s.reference): s for s in scores}, rows, replicates

    def of(self, samples: Voxels, train: Voxels | None = None, test: Voxels | None = None, **more: Any) -> tuple:
        train = drawn(24, 1) if train is None else train
        test = drawn(12, 2) if test is None else test
        sets = {"samples": samples, "real:train": train, "real:test": test}
        return self.reduce({source: self.items(source, cases, **more) for source, cases in sets.items()})


@pytest.fixture
def bench(run: Run, tmp_path: Path) -> Bench:
    return Bench(run, tmp_path, metric())


def ratios(cases: Voxels, region: int = 0) -> np.ndarray:
    return np.array([case[region] for case in cases if case is not None]) / TOTAL


# ---------------------------------------------------------------------------------------------------------- counting
def test_rvr_with_label_files_on_the_phantom_is_its_truth_exactly(run: Run, tmp_path: Path) -> None:
    dataset = PhantomDataset(PhantomConfig(shape=(32, 32, 24), n_train=3, n_test=2, n_val=0))
    data, names = dataset.protocol, {}
    truth: dict[str, dict[int, int]] = {}
    loaded = {}
    for split in ("train", "test"):
        for case in dataset.cases(split):
            volume, labels = dataset.load(case)
            assert labels is not None
            names = dict(labels.names)
            write_labels(tmp_path / f"{case.id}.nii.gz", labels)
            truth[case.id] = dict(enumerate(np.bincount(labels.labels.ravel(), minlength=13).tolist()))
            loaded[case.id] = (split, volume)
    segmenter = FilesSegmenter(FilesConfig(folder=tmp_path, label_names=names))
    found = segmenter.segment(((id, volume) for id, (_, volume) in loaded.items()), run)
    rvr = metric(data, names, segmenter="files")
    sources: dict[str, list[Item]] = {"samples": [], "real:train": [], "real:test": []}
    for (id, (split, volume)), labels in zip(loaded.items(), found, strict=True):
        assert isinstance(labels, LabelMap)
        for source in ("samples", f"real:{split}"):
            path = tmp_path / "made" / source.replace(":", "-") / f"{id}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_labels(path, labels)
            item = Item(id, source, path, spacing=volume.spacing, names=labels.names)
            (state,) = rvr.extract([item], run)
            save_state(path.with_suffix(".safetensors"), state)
            sources[source].append(Item(id, source, path.with_suffix(".safetensors"), spacing=volume.spacing))
    scores, rows, _ = Bench(run, tmp_path, rvr, data).reduce(sources)
    assert len(rows) == 8 * (5 + 3 + 2)
    values = {name: value for value, name in names.items()}
    for row in rows:
        members = ["lung_left", "lung_right"] if row.region == "lungs" else [row.region]
        assert row.value == sum(truth[row.case][values[name]] for name in members) / (32 * 32 * 24)
    ml = np.median([truth[id][values["aorta"]] for id in truth]) * 11**3 / 1000
    assert scores["rvr_ml", "aorta", "train"].value == pytest.approx(ml)
    assert all(scores["rvr_missing", region, "train"].value == 0 for region in data.rvr_regions)


def test_labels_of_a_composite_or_of_one_name_are_summed_and_unknown_regions_told() -> None:
    labels = np.zeros((4, 5, 6), dtype=np.uint8)
    labels[0], labels[1, 0], labels[2, :2], labels[3, 0, 0] = 10, 11, 12, 3
    names = {10: "lung_upper_lobe_left", 11: "lung_lower_lobe_right", 12: "lung_middle_lobe_right", 3: "aorta"}
    names |= {4: "left_atrium", 0: "aorta"}
    regions = ("lungs", "aorta", "left_atrium", "right_atrium", "lung_upper_lobe_left")
    state = volumes.count(LabelMap(labels, np.eye(4), names), regions, (1, 2, 3))
    assert state["voxels"].tolist() == [30 + 6 + 12, 1, 0, volumes.UNKNOWN, 30]
    assert state["total"].tolist() == [120] and state["voxel_mm3"].tolist() == [6.0]
    assert np.isnan(volumes.count(LabelMap(labels, np.eye(4), names), regions, None)["voxel_mm3"]).all()


# ------------------------------------------------------------------------------------------------ against real volumes
def test_medians_carry_quartiles_an_interval_and_both_real_sets(bench: Bench) -> None:
    samples, train = drawn(16, 3), drawn(24, 1)
    scores, rows, _ = bench.of(samples)
    score, own = scores["rvr", "aorta", "train"], np.sort(ratios(samples))
    assert score.value == pytest.approx(np.median(own))
    assert score.quartiles == pytest.approx(tuple(np.percentile(own, [25, 75])))
    assert (score.low, score.high) == pytest.approx((own[3], own[12])), "n = 16: the 4th and 13th value"
    assert (score.n, score.failed, score.n_reference) == (16, 0, 24)
    assert (
        f"real train: median {np.median(ratios(train)):.4g}" in score.note_text
        and "real test: median" in score.note_text
    )
    ml = scores["rvr_ml", "aorta", "train"]
    assert ml.value == pytest.approx(np.median(own) * TOTAL * 5 / 1000)
    assert Counter((row.generator, row.split) for row in rows) == {("toy", ""): 32, ("", "train"): 48, ("", "test"): 24}
    assert [r.value for r in rows if (r.generator, r.region) == ("toy", "aorta")] == ratios(samples).tolist()
    assert {row.patient for row in rows if row.generator == "toy"} == {""}
    assert {row.patient for row in rows if row.split == "test"} == {f"real:test-p{i}" for i in range(12)}


def test_distances_are_scipys_and_stand_beside_their_floor(bench: Bench) -> None:
    samples, train, test = drawn(12, 3), drawn(24, 1), drawn(12, 2)
    scores, _, _ = bench.of(samples)
    for split, real, other in (("train", train, test), ("test", test, train)):
        w1, ks = scores["rvr_w1", "aorta", split], scores["rvr_ks", "aorta", split]
        expected = scipy_stats.wasserstein_distance(ratios(samples), ratios(real))
        assert w1.value == pytest.approx(expected) and w1.low <= w1.value <= w1.high
        if len(other) == 12:
            assert w1.floor == pytest.approx(scipy_stats.wasserstein_distance(ratios(other), ratios(real)))
        assert (w1.n, w1.n_reference, w1.floor_n) == (12, len(real), 12)
        reference = scipy_stats.ks_2samp(ratios(samples), ratios(real))
        assert (ks.value, ks.p) == pytest.approx((reference.statistic, reference.pvalue)) and "Smirnov" in ks.p_of
        ratio = scores["rvr_variance_ratio", "aorta", split]
        assert ratio.value == pytest.approx(ratios(samples).var(ddof=1) / ratios(real).var(ddof=1))
        assert ratio.floor == pytest.approx(ratios(other).var(ddof=1) / ratios(real).var(ddof=1))
        assert ratio.low < ratio.value < ratio.high
    assert "12 of 24, mean of 100 subsets, real train patients" in scores["rvr_w1", "aorta", "test"].floor_note


def test_more_samples_than_test_patients_are_cut_to_the_floors_n_for_w1_only(bench: Bench) -> None:
    scores, _, _ = bench.of(drawn(40, 3))
    assert (scores["rvr_w1", "aorta", "train"].n, scores["rvr_w1", "aorta", "train"].floor_n) == (12, 12)
    assert "12 of 40 samples, a seeded subset" in scores["rvr_w1", "aorta", "train"].note_text
    assert scores["rvr_w1", "aorta", "test"].n == 24
    assert {scores[name, "aorta", "train"].n for name in ("rvr", "rvr_ks", "rvr_variance_ratio", "rvr_missing")} == {40}


def test_without_enough_test_patients_there_is_no_floor_and_all_samples_count(bench: Bench) -> None:
    scores, _, _ = bench.of(drawn(16, 3), test=drawn(3, 2))
    for name in ("rvr_w1", "rvr_variance_ratio"):
        assert scores[name, "aorta", "train"].floor is None
        assert scores[name, "aorta", "train"].floor_note == "no floor: 3 real test patients, at least 8 are needed"
    assert scores["rvr_w1", "aorta", "train"].n == 16
    assert scores["rvr_joint", "", "train"].floor is None and scores["rvr_joint", "", "train"].status == "ok"
    assert scores["rvr_ks", "aorta", "test"].reason == "3 real test patients; at least 8 are needed"


def test_samples_like_real_ones_lie_at_the_floor_and_shifted_ones_do_not(bench: Bench) -> None:
    like, _, _ = bench.of(drawn(16, 3))
    unlike, _, _ = bench.of(drawn(16, 3, mean=(300, 100)))
    assert like["rvr_joint", "", "train"].p > 0.05 and like["rvr_ks", "aorta", "train"].p > 0.01
    assert unlike["rvr_joint", "", "train"].p <= 0.01 and unlike["rvr_ks", "aorta", "train"].p < 1e-4
    for name in ("rvr_joint", "rvr_w1"):
        key = (name, "" if name == "rvr_joint" else "aorta", "train")
        assert unlike[key].low > max(unlike[key].floor, like[key].value), name
    assert unlike["rvr_ks", "left_atrium", "train"].p > 0.01, "the region that was left alone"


def test_the_joint_score_sees_broken_proportions_that_no_single_region_shows(bench: Bench) -> None:
    """Each region's own distribution is kept; the largest aorta goes with the smallest atrium."""

    def in_proportion(n: int, seed: int) -> Voxels:
        rng = np.random.default_rng(seed)
        sizes = np.exp(0.2 * rng.normal(0, 1, (n, 1)) + 0.02 * rng.normal(0, 1, (n, 2)))
        return np.rint(sizes * [300, 150]).astype(int).tolist()

    train, test, samples = in_proportion(80, 1), in_proportion(12, 2), np.array(in_proportion(80, 3))
    broken = np.stack([np.sort(samples[:, 0]), np.sort(samples[:, 1])[::-1]], axis=1).tolist()
    whole, _, _ = bench.of(samples.tolist(), train=train, test=test)
    scores, _, _ = bench.of(broken, train=train, test=test)
    for region in ("aorta", "left_atrium"):
        assert scores["rvr_ks", region, "train"].p == whole["rvr_ks", region, "train"].p > 0.05
    assert whole["rvr_joint", "", "train"].p > 0.05 and scores["rvr_joint", "", "train"].p <= 0.01


def test_the_joint_value_is_the_energy_distance_in_standard_deviations_of_the_reference(bench: Bench) -> None:
    from scipy.spatial.distance import cdist

    samples, train = drawn(10, 3), drawn(24, 1)
    scores, _, replicates = bench.of(samples)
    x, y = np.array(samples) / TOTAL, np.array(train) / TOTAL
    x, y = x / y.std(0, ddof=1), y / y.std(0, ddof=1)
    expected = 2 * cdist(x, y).mean() - cdist(x, x).sum() / (10 * 9) - cdist(y, y).sum() / (24 * 23)
    score = scores["rvr_joint", "", "train"]
    assert score.value == pytest.approx(expected) and score.low <= score.value <= score.high
    assert "unbiased" in score.floor_note and score.floor_n == 12
    one = replicates["train"]
    assert one.value == score.value and list(one.samples) == [f"samples-{i:03d}" for i in range(10)]
    assert set(one.real) == {f"real:train-p{i}" for i in range(24)}
    left = x[1:]
    without = 2 * cdist(left, y).mean() - cdist(left, left).sum() / (9 * 8) - cdist(y, y).sum() / (24 * 23)
    assert one.samples["samples-000"] == pytest.approx(without)


def test_less_varied_samples_have_a_variance_ratio_below_one_whatever_the_unit(bench: Bench) -> None:
    train = drawn(24, 1)
    median = np.median(np.array(train), axis=0)
    narrow = np.rint(median + 0.3 * (np.array(drawn(24, 5)) - median)).astype(int).tolist()
    score = bench.of(narrow)[0]["rvr_variance_ratio", "aorta", "train"]
    assert score.value < 0.25 and score.high < 1
    same = bench.of([[200, 100]] * 16)[0]["rvr_variance_ratio", "aorta", "train"]
    assert (same.value, same.low) == (0, None) and "no interval" in same.note_text
    fixed = bench.of(drawn(16, 3), train=[[200, b] for _, b in drawn(24, 1)])[0]
    assert "one value" in fixed["rvr_variance_ratio", "aorta", "train"].reason
    assert "without aorta" in fixed["rvr_joint", "", "train"].note_text


def test_one_volume_that_decides_a_regions_interval_is_known_by_its_place() -> None:
    x, y = np.linspace(0.1, 0.2, 12), np.linspace(0.1, 0.2, 12)
    assert not distances.wasserstein(x + 0.05, y)[1].heavy
    x[3] = 3.0
    tails = distances.wasserstein(x, y)[1]
    assert tails.heavy and tails.place == (0, 3)


def test_the_interval_of_sets_that_do_not_overlap_is_welchs() -> None:
    """Wasserstein-1 is then the difference of the means, and the jackknife's error that of Welch's t-test."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(10, 1, 9), rng.normal(0, 2, 15)
    found, _ = distances.wasserstein(x, y)
    expected = scipy_stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    assert found.value == pytest.approx(x.mean() - y.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("shift", "spread"), [(0.0, 1.0), (0.5, 1.0), (0.0, 0.5)])
def test_intervals_cover_what_they_are_of(shift: float, spread: float) -> None:
    rng = np.random.default_rng(1)

    def sets() -> tuple[np.ndarray, np.ndarray]:
        return np.exp(0.25 * (shift + spread * rng.normal(size=16))), np.exp(0.25 * rng.normal(size=24))

    expected = np.mean([scipy_stats.wasserstein_distance(*sets()) for _ in range(2000)])
    many = [np.exp(0.25 * (a + b * rng.normal(size=200_000))).var() for a, b in ((shift, spread), (0, 1))]
    covered, n = np.zeros(2), 150
    for _ in range(n):
        x, y = sets()
        distance, ratio = distances.wasserstein(x, y)[0], distances.variance_ratio(x, y)
        covered += [distance.low <= expected <= distance.high, ratio.low <= many[0] / many[1] <= ratio.high]
    assert (covered / n > 0.88).all(), covered / n


# ---------------------------------------------------------------------------------------------------- missing regions
def test_a_dropped_region_is_missing_in_every_sample_and_flagged(bench: Bench) -> None:
    scores, _, _ = bench.of([[0, b] for _, b in drawn(16, 3)])
    lost, kept = scores["rvr_missing", "aorta", "train"], scores["rvr_missing", "left_atrium", "train"]
    assert lost.value == 1 and lost.high == pytest.approx(1) and lost.low > 0.8
    assert lost.warning == "16 of 16 samples lack it, 0 of 24 real train volumes do"
    assert (kept.value, kept.low, kept.warning) == (0, pytest.approx(0), "")
    assert (lost.floor, lost.floor_n) == (0, 12) and "0 of 12 real test volumes" in lost.floor_note


def test_a_fragment_counts_as_missing_and_a_small_organ_does_not(bench: Bench) -> None:
    smallest = int(ratios(drawn(24, 1)).min() * TOTAL)
    scores, _, _ = bench.of([[3, 100]] * 2 + [[int(0.6 * smallest), 100]] * 2 + drawn(12, 3))
    assert scores["rvr_missing", "aorta", "train"].value == 2 / 16


def test_a_region_that_real_volumes_lack_as_often_is_no_surprise(bench: Bench) -> None:
    train = [[0, b] if i < 12 else [a, b] for i, (a, b) in enumerate(drawn(24, 1))]
    half = [[0, b] if i % 2 else [a, b] for i, (a, b) in enumerate(drawn(16, 3))]
    score = bench.of(half, train=train)[0]["rvr_missing", "aorta", "train"]
    assert score.value == 0.5 and score.warning == "" and "12 of 24 real train volumes" in score.floor_note
    never = bench.of(drawn(16, 3), train=train)[0]["rvr_missing", "aorta", "train"]
    assert never.warning == "" and never.p == 1, "to have a region that real volumes lack is not to miss it"
    more = bench.of([[0, b] for _, b in drawn(16, 3)], train=train)[0]["rvr_missing", "aorta", "train"]
    assert more.warning == "16 of 16 samples lack it, 12 of 24 real train volumes do"
    none = bench.of(drawn(16, 3), train=[[0, b] for _, b in drawn(24, 1)])[0]["rvr_missing", "aorta", "train"]
    assert none.status == "not_run" and none.reason == "no real train volume has it"


def test_few_real_volumes_without_it_are_no_alarm_at_the_nominal_rate(bench: Bench) -> None:
    """A region that a fifth of all volumes lack: the warning compares two rates, both of them uncertain."""
    rng, warned = np.random.default_rng(0), 0
    for seed in range(40):
        sides = [drawn(n, 10 * seed + n) for n in (24, 16)]
        train, samples = ([[0 if rng.random() < 0.2 else a, b] for a, b in side] for side in sides)
        warned += bool(bench.of(samples, train=train)[0]["rvr_missing", "aorta", "train"].warning)
    assert warned <= 3


def test_real_volumes_are_missing_nothing_by_the_rule_for_missing(bench: Bench) -> None:
    """Held out volumes of the same distribution: expected rate about 0 also at a small n of the training set."""
    lost = 0
    for seed in range(5):
        score = bench.of(drawn(50, 100 + seed), train=drawn(8, 200 + seed))[0]["rvr_missing", "aorta", "train"]
        lost += round(score.value * 50)
    assert lost == 0


# ------------------------------------------------------------------------------------------------ failures and bad input
def test_failed_samples_are_in_n_missing_everywhere_and_outside_the_distributions(bench: Bench) -> None:
    good = drawn(13, 3)
    scores, rows, replicates = bench.of([*good[:5], None, *good[5:], None, None])
    median, missing = scores["rvr", "aorta", "train"], scores["rvr_missing", "aorta", "train"]
    assert (median.n, median.failed, median.value) == (16, 3, pytest.approx(np.median(ratios(good))))
    assert (missing.n, missing.failed, missing.value) == (16, 3, 3 / 16) and missing.p == pytest.approx(
        comb(16, 3) / comb(40, 3)
    )
    for key, score in scores.items():
        assert "failed samples are left out here and count as missing" in score.note_text, key
    assert sum(row.generator == "toy" for row in rows) == 26 and len(replicates["train"].samples) == 13
    w1 = scores["rvr_w1", "aorta", "train"]
    assert w1.n == 12 and w1.floor_n == 12 - w1.failed, "the floor is at as many volumes as the value rests on"


def test_failed_real_volumes_are_said_and_count_as_missing_among_the_real(bench: Bench) -> None:
    scores, rows, _ = bench.of(drawn(16, 3), train=[*drawn(22, 1), None, None])
    assert scores["rvr", "aorta", "train"].n_reference == 22
    assert (
        "2 of 24 real train volumes have no label map, the first: constant"
        in scores["rvr_joint", "", "train"].note_text
    )
    assert "2 of 24 real train volumes" in scores["rvr_missing", "aorta", "train"].floor_note
    assert sum(row.split == "train" for row in rows) == 44


def test_nothing_but_failed_samples_leaves_the_missing_rate(bench: Bench) -> None:
    scores, _, _ = bench.of([None] * 10)
    ran = {key[0] for key, score in scores.items() if score.status == "ok"}
    assert ran == {"rvr_missing"} and scores["rvr_missing", "aorta", "train"].value == 1
    assert scores["rvr", "aorta", "train"].reason == "all 10 samples failed, the first: constant (0 HU)"
    assert "0 samples have a label map (10 of 10 failed)" in scores["rvr_joint", "", "train"].reason


def test_too_few_samples_have_medians_and_no_distances(bench: Bench) -> None:
    scores, _, replicates = bench.of(drawn(4, 3))
    assert scores["rvr", "aorta", "train"].status == scores["rvr_missing", "aorta", "train"].status == "ok"
    assert scores["rvr", "aorta", "train"].low is None and "no interval: 4" in scores["rvr", "aorta", "train"].note_text
    for name in ("rvr_w1", "rvr_ks", "rvr_variance_ratio"):
        assert scores[name, "aorta", "train"].reason == "4 samples have a label map; at least 8 are needed"
    assert scores["rvr_joint", "", "test"].status == "not_run" and not replicates


def test_as_many_as_are_needed_are_enough_on_each_side(bench: Bench) -> None:
    """Eight are needed: eight samples, train and test patients are compared and have floors, seven of one are not."""
    against = ("rvr_w1", "rvr_ks", "rvr_variance_ratio")
    keys = [(name, "aorta", "train") for name in against] + [("rvr_joint", "", "train")]
    enough, _, _ = bench.of(drawn(8, 3), train=drawn(8, 1), test=drawn(8, 2))
    assert {enough[key].status for key in keys} == {"ok"}
    assert all(enough[key].floor is not None for key in keys if key[0] != "rvr_ks")
    few, _, _ = bench.of(drawn(7, 3), train=drawn(8, 1), test=drawn(8, 2))
    assert {few[key].reason for key in keys} == {"7 samples have a label map; at least 8 are needed"}
    few, _, _ = bench.of(drawn(8, 3), train=drawn(7, 1), test=drawn(8, 2))
    assert {few[key].reason for key in keys} == {"7 real train patients; at least 8 are needed"}
    few, _, _ = bench.of(drawn(8, 3), train=drawn(8, 1), test=drawn(7, 2))
    assert {few[key].status for key in keys} == {"ok"} and few["rvr_w1", "aorta", "train"].floor is None


def test_a_patient_with_several_volumes_has_their_median(bench: Bench) -> None:
    voxels = [[100, 30], [110, 40], [400, 10], [50, 60]]  # of the first patient three, of which one is an outlier
    items = bench.items("real:train", voxels, patients=["a", "a", "a", "b"])
    names, values = volumes.Volumes.of(items, 2).by_patient()
    assert names == ["a", "b"]
    assert np.allclose(values * TOTAL, [[110, 30], [50, 60]], rtol=1e-12)


def test_a_patient_with_several_volumes_counts_once_in_the_reference(bench: Bench) -> None:
    train, patients = drawn(24, 1), [f"p{i // 2}" for i in range(24)]
    items = {"samples": bench.items("samples", drawn(12, 3)), "real:test": bench.items("real:test", drawn(12, 2))}
    items["real:train"] = bench.items("real:train", train, patients=patients)
    items = {source: items[source] for source in ("samples", "real:train", "real:test")}
    scores, _, replicates = bench.reduce(items)
    collapsed = ratios(train).reshape(12, 2).mean(1)
    expected = scipy_stats.wasserstein_distance(ratios(drawn(12, 3)), collapsed)
    assert scores["rvr_w1", "aorta", "train"].value == pytest.approx(expected)
    assert scores["rvr_w1", "aorta", "train"].n_reference == 12
    assert set(replicates["train"].real) == {f"p{i}" for i in range(12)}
    assert scores["rvr_missing", "aorta", "train"].n_reference == 24


def test_without_a_voxel_size_ml_is_not_run(bench: Bench) -> None:
    scores, _, _ = bench.of(drawn(16, 3), spacing=None)
    assert scores["rvr_ml", "aorta", "train"].reason == "generated volumes have no physical size"
    assert scores["rvr", "aorta", "train"].status == "ok"


def test_regions_that_the_segmenter_does_not_know_are_one_score(run: Run, tmp_path: Path) -> None:
    bench = Bench(run, tmp_path, metric(regions=("aorta", "left_atrium", "right_atrium", "pulmonary_artery")))
    blind = [[*case, volumes.UNKNOWN, volumes.UNKNOWN] for case in drawn(16, 3)]
    real = [[*case, volumes.UNKNOWN, volumes.UNKNOWN] for case in drawn(24, 1)]
    scores, rows, _ = bench.of(blind, train=real, test=real[:12])
    lost = scores["rvr", "right_atrium, pulmonary_artery", "train"]
    assert lost.reason == "the segmenter files does not define it" and lost.status == "not_run"
    assert sum(score.status == "not_run" for score in scores.values()) == 1
    assert {row.region for row in rows} == {"aorta", "left_atrium"}
    assert "without right_atrium, pulmonary_artery" in scores["rvr_joint", "", "train"].note_text


def test_a_generator_without_samples_is_not_run(bench: Bench) -> None:
    scores, _, _ = bench.reduce({"real:train": bench.items("real:train", drawn(24, 1))})
    assert len(scores) == 7
    assert {score.reason for score in scores.values()} == {"the generator has no unconditional samples"}


def test_the_order_of_items_changes_nothing(bench: Bench) -> None:
    items = {s: bench.items(s, drawn(n, k)) for s, n, k in (("samples", 40, 3), ("real:train", 24, 1))}
    items["real:test"] = bench.items("real:test", drawn(12, 2))
    forwards, _, _ = bench.reduce(items)
    backwards, _, _ = bench.reduce({**items, "samples": items["samples"][::-1]})
    for key, score in forwards.items():
        assert backwards[key].value == pytest.approx(score.value, rel=1e-12), key


# --------------------------------------------------------------------------------------------------------- protocol
def test_the_protocol_holds_what_changes_a_value_and_no_path(tmp_path: Path) -> None:
    id, text = protocol_of("rvr", metric(), DATA)
    assert id.startswith("rvr-files-") and text["regions"] == ["aorta", "left_atrium"]
    settings = {"label_names": dict(NAMES), "folder": str(tmp_path)}
    assert protocol_of("rvr", metric(segmenter_settings=settings), DATA)[0] == id
    others = [metric(minimum=9), metric(seed=1), metric(regions=("aorta",)), metric(names={**NAMES, 3: "lungs"})]
    assert len({id, *(protocol_of("rvr", other, DATA)[0] for other in others)}) == 5


def test_what_is_left_open_comes_from_the_data_set() -> None:
    assert RVRConfig().for_data(DATA).regions == ("aorta", "left_atrium")
    assert RVRConfig().for_data(DATA).segmenter == "files"
    chosen = RVRConfig(segmenter="lungs", regions=("lungs",)).for_data(DATA)
    assert (chosen.segmenter, chosen.regions) == ("lungs", ("lungs",))
    nothing = metric(DATA.model_copy(update={"rvr_regions": ()}))
    assert protocol_of("rvr", nothing, DATA)[1]["regions"] == list(NAMES.values()), (
        "no regions: all that the segmenter knows"
    )
    with pytest.raises(UserError, match="segmenter is not given"):
        RVR(RVRConfig()).needs()


@pytest.mark.parametrize("settings", [{"minimum": 3}, {"permutations": 0}, {"bootstrap": 9}])
def test_bad_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RVRConfig.model_validate(settings)
