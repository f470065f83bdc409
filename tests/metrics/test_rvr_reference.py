"""`rvr` against a reference file: which statistics are published at which n, and that its numbers are those of the cases."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from medlord_bench.contracts import DataProtocol, Grid, Item, MetricInputs, Run
from medlord_bench.contracts.reference import NEEDS_CASES, HasReference
from medlord_bench.contracts.results import CaseRow, Score
from medlord_bench.metrics.rvr.metric import RVR, RVRConfig
from medlord_bench.metrics.rvr.reference import LEAST_WITH, LEVELS, least_patients

TOTAL = 1000
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
Voxels = Sequence[Sequence[int] | None]
Scores = dict[tuple[str, str], Score]


class Bench:
    def __init__(self, run: Run, folder: Path) -> None:
        settings = {"label_names": {1: "aorta", 2: "left_atrium"}}
        self.run, self.folder = run, folder
        self.metric = RVR(RVRConfig(segmenter_settings=settings, permutations=99).for_data(DATA))

    def inputs(self, **sets: Voxels) -> MetricInputs:
        needs = {str(need.source): need for need in self.metric.needs()}
        names = {"samples": "samples", "train": "real:train", "test": "real:test"}
        found = {needs[names[name]]: self._items(names[name], cases) for name, cases in sets.items()}
        return MetricInputs("toy", "toy", DATA, found)

    def _items(self, source: str, cases: Voxels) -> list[Item]:
        made = []
        for i, voxels in enumerate(cases):
            path = self.folder / source.replace(":", "-") / f"{i}.safetensors"
            path.parent.mkdir(exist_ok=True)
            patient = None if source == "samples" else f"{source}-p{i}"
            if voxels is not None:
                state = {"voxels": np.array(voxels), "total": np.array([TOTAL]), "voxel_mm3": np.array([5.0])}
                save_file(state, path)
            made.append(Item(f"{source}-{i:03d}", source, path if voxels else None, patient, failed=None))
        return made

    def both(self, samples: Voxels, train: Voxels, test: Voxels) -> tuple[Scores, Scores]:
        """With cases, and against their statistics."""
        real = self.metric.aggregate(self.inputs(train=train, test=test))
        assert real is not None
        with_cases = self.metric.reduce(self.inputs(samples=samples, train=train, test=test), self.run)
        without = list(self.metric.reduce_against(self.inputs(samples=samples), real.arrays, self.run))
        assert {one.generator for one in without if isinstance(one, CaseRow)} <= {"toy"}
        self.rows = [(one.case, one.region, one.value) for one in without if isinstance(one, CaseRow)]
        return keyed(with_cases), keyed(without)


def keyed(found: Any) -> Scores:
    return {(s.metric, s.region): s for s in found if isinstance(s, Score) and s.reference == "train"}


def drawn(n: int, seed: int, mean: tuple[int, int] = (200, 100)) -> list[list[int]]:
    found: list[list[int]] = np.random.default_rng(seed).normal(mean, (30, 15), (n, 2)).round().astype(int).tolist()
    return found


@pytest.fixture
def bench(run: Run, tmp_path: Path) -> Bench:
    assert isinstance(RVR, HasReference)
    return Bench(run, tmp_path)


def test_what_is_of_the_samples_is_equal_and_the_rest_needs_cases(bench: Bench) -> None:
    with_cases, without = bench.both([*drawn(11, 0), None, [0, 90]], drawn(24, 1), drawn(22, 2))
    for metric in ("rvr", "rvr_ml"):
        for region in DATA.rvr_regions:
            ours, theirs = with_cases[metric, region], without[metric, region]
            for field in ("value", "low", "high", "quartiles", "n", "failed", "n_reference", "interval"):
                assert getattr(theirs, field) == getattr(ours, field), field
    for metric in ("rvr_w1", "rvr_ks", "rvr_variance_ratio", "rvr_joint"):
        assert (without[metric, ""].status, without[metric, ""].reason) == ("not_run", NEEDS_CASES)
    lost = without["rvr_absent", "aorta"]
    assert bench.rows == [
        (f"samples-{i:03d}", region, voxels[place] / TOTAL)
        for i, voxels in enumerate([*drawn(11, 0), None, [0, 90]])
        if voxels is not None
        for place, region in enumerate(DATA.rvr_regions)
    ]
    assert (lost.value, lost.floor, lost.n) == (2 / 13, 0.0, 13)  # one without it, one that failed
    assert lost.floor_note == "0 of 22 real test volumes, 0 of 24 real train volumes"
    assert lost.p == pytest.approx(comb(13, 2) / comb(37, 2)) and lost.warning == "", "2 of 13 can be chance"


def test_missing_regions_are_counted_as_with_cases_from_a_hundred_real_volumes_on(bench: Bench) -> None:
    samples = [*drawn(9, 0), [20, 100], [0, 100], None]
    with_cases, without = bench.both(samples, drawn(120, 1), drawn(40, 2))
    for region in DATA.rvr_regions:
        ours, theirs = with_cases["rvr_missing", region], without["rvr_missing", region]
        fields = ("value", "low", "high", "floor", "floor_n", "floor_note", "warning", "n", "n_reference")
        assert [getattr(theirs, field) for field in fields] == [getattr(ours, field) for field in fields]
    _, few = bench.both(samples, drawn(99, 1), drawn(40, 2))
    assert few["rvr_missing", "aorta"].reason.startswith(f"{NEEDS_CASES}: fewer than 100 real train volumes")


@pytest.mark.parametrize(("n", "quantiles"), [(19, False), (20, True)])
def test_quantiles_are_published_where_a_patient_lies_beyond_each(bench: Bench, n: int, quantiles: bool) -> None:
    train = drawn(n, 1)
    real = bench.metric.aggregate(bench.inputs(train=train, test=drawn(19, 2)))
    assert real is not None and real.patients == 19
    assert ("train/rvr/quantiles" in real.arrays) == quantiles
    assert ("train/rvr/mean" in real.arrays) != quantiles
    values = np.array(train) / TOTAL
    if quantiles:
        found = real.arrays["train/rvr/quantiles"]
        np.testing.assert_allclose(found, np.quantile(values, LEVELS, axis=0).T, rtol=5e-3)
        assert (found[:, 0] > values.min(0)).all() and (found[:, -1] < values.max(0)).all()
    else:
        np.testing.assert_allclose(real.arrays["train/rvr/mean"], values.mean(0), rtol=5e-3)
    assert [least_patients(level) for level in (0.01, 0.05, 0.5, 0.95)] == [100, 20, 2, 20]


def test_a_region_that_few_have_is_counted_and_not_described(bench: Bench) -> None:
    """The mean over 24 with one that has the region would be that patient's value."""
    train = [[200, 0]] * (24 - LEAST_WITH + 1) + [[210, 70]] * (LEAST_WITH - 1)
    real = bench.metric.aggregate(bench.inputs(train=train, test=drawn(24, 2)))
    assert real is not None
    assert real.arrays["train/absent"].tolist() == [0, 24 - LEAST_WITH + 1]
    assert np.isnan(real.arrays["train/rvr/quantiles"]).all(1).tolist() == [False, True]
    assert np.isnan(real.arrays["least"]).all()


def test_too_few_patients_and_no_samples(bench: Bench) -> None:
    assert bench.metric.aggregate(bench.inputs(train=drawn(1, 0), test=drawn(9, 1))) is None
    assert bench.metric.aggregate(bench.inputs()) is None
    _, without = bench.both([], drawn(20, 1), drawn(20, 2))
    assert {one.reason for one in without.values()} == {"the generator has no unconditional samples"}
    _, failed = bench.both([None] * 6, drawn(20, 1), drawn(20, 2))
    assert failed["rvr", "aorta"].status == "not_run" and failed["rvr_absent", "aorta"].value == 1
