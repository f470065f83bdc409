"""`fid` against a reference file: which real volumes are behind it, equality with the cases, and what is not run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from medlord_bench.contracts import DataProtocol, Grid, Item, Made, MetricInputs, Need, Run
from medlord_bench.contracts.reference import NEEDS_CASES, Statistics
from medlord_bench.contracts.results import Replicates, Score
from medlord_bench.metrics.fid.metric import FID, FIDConfig
from medlord_bench.volumes.arrays import save_state

PLANES, D = ("axial", "coronal", "sagittal"), 6
GRID = Grid(shape=(64, 64, 48))
DATA = DataProtocol(
    name="toy", grid=GRID, fit="crop-pad", split="by hand", split_sha256="0" * 64, counts={}, masks="none"
)
Scores = dict[tuple[str, str, str], Score]


class Bench:
    def __init__(self, run: Run, folder: Path) -> None:
        self.run, self.folder = run, folder

    def items(self, source: str, n: int, shift: float = 0.0, failed: Sequence[int] = ()) -> list[Item]:
        made = []
        for i in range(n):
            path = self.folder / f"{source.replace(':', '-')}-{i:03d}.safetensors"
            rng = np.random.default_rng([i, len(source)])
            if not path.exists():
                save_state(path, {plane: rng.normal(shift, 1, (4, D)).astype(np.float32) for plane in PLANES})
            patient = None if source == "samples" else f"p{i // 2}"  # two volumes of each patient
            made.append(Item(path.stem, source, None if i in failed else path, patient))
        return made

    def inputs(self, sets: dict[str, list[Item]]) -> MetricInputs:
        found = {Need(source, Made.FEATURES, extractor="imagenet"): items for source, items in sets.items()}
        return MetricInputs("noise", "toy", DATA, found)

    def both(
        self, samples: list[Item], train: int = 30, test: int = 12, **settings: object
    ) -> tuple[Scores, Scores, Statistics]:
        metric = FID(FIDConfig.model_validate({"minimum": 4, **settings}))
        real = {"real:train": self.items("real:train", train), "real:test": self.items("real:test", test, 0.2)}
        stored = metric.aggregate(self.inputs(real))
        assert stored is not None
        with_cases = list(metric.reduce(self.inputs({"samples": samples, **real}), self.run))
        without = list(metric.reduce_against(self.inputs({"samples": samples}), stored.arrays, self.run))
        assert not any(isinstance(one, Replicates) for one in without)
        ours, theirs = (
            {(s.metric, s.reference, s.region): s for s in found if isinstance(s, Score)}
            for found in (with_cases, without)
        )
        return ours, theirs, stored


@pytest.fixture
def bench(run: Run, tmp_path: Path) -> Bench:
    return Bench(run, tmp_path)


@pytest.mark.parametrize("samples", [12, 20])
def test_every_fid_equals_that_with_cases_if_there_are_as_many_samples(bench: Bench, samples: int) -> None:
    """Also where the real volumes and the samples are subsets."""
    ours, theirs, stored = bench.both(bench.items("samples", samples, 0.5))
    assert stored.arrays["volumes"].tolist() == [12]
    keys = [key for key in ours if key[0] == "fid"]
    assert len(keys) == 8
    for key in keys:
        assert theirs[key].value == pytest.approx(ours[key].value, rel=1e-9)
        for field in ("floor", "floor_n", "floor_note", "n", "n_reference", "failed"):
            assert getattr(theirs[key], field) == getattr(ours[key], field), field
        counts = [[note for note in one.notes if note.kind == "counts"] for one in (theirs[key], ours[key])]
        assert counts[0] == counts[1]
        assert ours[key].low < theirs[key].low < theirs[key].value < theirs[key].high < ours[key].high
    others = [one for key, one in theirs.items() if key[0] != "fid"]
    assert {(one.status, one.reason) for one in others} == {("not_run", NEEDS_CASES)}


def test_the_patients_counted_are_those_behind_the_subset(bench: Bench) -> None:
    _, _, stored = bench.both(bench.items("samples", 12))
    assert stored.patients == 6  # twelve test volumes of six patients, though train has thirty
    assert stored.arrays["train/axial/slices"].tolist() == [48]
    assert stored.arrays["available"].tolist() == [30, 12]


def test_another_n_needs_cases(bench: Bench) -> None:
    _, few, _ = bench.both(bench.items("samples", 11))
    assert few["fid", "test", ""].reason == (
        "needs cases: 11 samples; the reference has 12 real volumes, and n must be equal on both sides: "
        "give at least 12 samples"
    )
    _, failed, _ = bench.both(bench.items("samples", 12, failed=[3]))
    assert "1 of the 12 measured samples failed" in failed["fid", "train", ""].reason
    assert failed["fid", "train", ""].failed == 1
    _, none, _ = bench.both([])
    assert none["fid", "test", ""].reason == "the generator has no unconditional samples"


def test_a_small_split_is_no_reference_and_gives_no_floor(bench: Bench) -> None:
    _, found, stored = bench.both(bench.items("samples", 30, 0.5), test=3)
    assert stored.arrays["volumes"].tolist() == [30] and "floor" not in stored.arrays
    assert found["fid", "test", ""].reason == "3 real test volumes; fid needs at least 4 on each side"
    assert found["fid", "train", ""].value is not None and found["fid", "train", ""].floor is None
    assert found["fid", "train", ""].floor_note == "no floor: too few real test volumes"


def test_few_real_volumes_have_no_statistics(bench: Bench) -> None:
    assert FID(FIDConfig()).aggregate(bench.inputs({"real:train": bench.items("real:train", 7)})) is None
    assert FID(FIDConfig()).aggregate(bench.inputs({})) is None
