"""`frd`: the logarithm of the radiomic distance, its interval, p, floor and reasons."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.linalg import sqrtm

from medlord_bench.contracts import DataProtocol, Grid, Item, Made, MetricInputs, Need, Run
from medlord_bench.contracts.metrics import protocol_of
from medlord_bench.contracts.reference import HasReference
from medlord_bench.contracts.results import Replicates, Score
from medlord_bench.errors import UserError
from medlord_bench.metrics.fid.radiomic_metric import FRD, FRDConfig
from medlord_bench.volumes.arrays import load_state, save_state

IMAGES, FEATURES, DIAGNOSTICS = ["original", "wavelet-LLL"], [f"class_{i}" for i in range(9)], ["size", "mean"]
WIDTH = 20
DATA = DataProtocol(
    name="toy",
    grid=Grid(shape=(64, 64, 48)),
    fit="crop-pad",
    split="by hand",
    split_sha256="0" * 64,
    counts={"train": 20, "val": 0, "test": 20},
    masks="none",
)
MakeItems = Callable[..., list[Item]]


@pytest.fixture(autouse=True)
def extractor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The description of an extractor without its library."""
    text = {"backbone": "a library 1.0", "images": IMAGES, "features": FEATURES, "diagnostics": DIAGNOSTICS}
    monkeypatch.setattr(FRD, "_extractor", lambda self: SimpleNamespace(preprocessing=text, version=1))


@pytest.fixture
def items(tmp_path: Path) -> MakeItems:
    def make(
        source: str, n: int, shift: float = 0.0, patients: int = 0, **edits: Callable[[np.ndarray], None]
    ) -> list[Item]:
        made = []
        for i in range(n):
            name = f"{source.replace(':', '-')}-{i:03d}"
            rows = np.random.default_rng([i, len(source)]).normal(shift, 1, (1, WIDTH)) * 10.0 ** np.arange(WIDTH)
            rows[0, 18] = 7  # one of the diagnostics: of one value
            for place, edit in edits.items():
                if f"i{i}" == place:
                    edit(rows)
            save_state(tmp_path / f"{name}.safetensors", {"volume": rows.astype(np.float32)})
            patient = f"p{i % patients}" if patients else None
            made.append(Item(name, source, tmp_path / f"{name}.safetensors", patient=patient))
        return made

    return make


def measured(run: Run, sets: Sequence[list[Item]], data: DataProtocol = DATA, **settings: object) -> list[Any]:
    sources = ("samples", "real:train", "real:test")
    given = {Need(name, Made.FEATURES, extractor="radiomics"): some for name, some in zip(sources, sets, strict=True)}
    config = FRDConfig.model_validate({"permutations": 199, **settings})
    return list(FRD(config).reduce(MetricInputs("noise", "toy", data, given), run))


def scores(run: Run, sets: Sequence[list[Item]], **settings: Any) -> dict[str, Score]:
    found = [one for one in measured(run, sets, **settings) if isinstance(one, Score)]
    assert all(one.metric == "frd" and not one.region for one in found)
    return {one.reference: one for one in found}


def rows(some: Sequence[Item]) -> np.ndarray:
    return np.concatenate([load_state(item.path)["volume"] for item in some if item.path]).astype(float)


def by_hand(x: np.ndarray, reference: np.ndarray) -> float:
    """log of the squared distance by scipy's matrix square root; the feature of one value left out."""
    x, reference = (np.delete(one, 18, axis=1) for one in (x, reference))
    mean, deviation = reference.mean(0), reference.std(0)
    x, y = (x - mean) / deviation, (reference - mean) / deviation
    apart = x.mean(0) - y.mean(0)
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    return math.log(apart @ apart + np.trace(s) + np.trace(t) - 2 * np.trace(sqrtm(s @ t)).real)


def test_value_and_floor_are_the_published_formula(run: Run, items: MakeItems) -> None:
    sets = items("samples", 30, 0.8), items("real:train", 30), items("real:test", 30)
    found, (x, y, z) = scores(run, sets), (rows(some) for some in sets)
    for split, real, other in (("train", y, z), ("test", z, y)):
        one = found[split]
        assert one.value == pytest.approx(by_hand(x, real), rel=1e-6)
        assert one.floor == pytest.approx(by_hand(other, real), rel=1e-6)
        assert one.low < one.value < one.high and one.p == pytest.approx(1 / 200)
        assert (one.n, one.n_reference, one.floor_n) == (30, 30, 30)
        assert "1 of 20 features are constant in them" in one.note_text
        assert "largest differences of a mean" in one.note_text and "covariance has rank" not in one.note_text
    assert found["test"].value > found["test"].floor + 0.5


def test_equal_sets_are_at_the_floor(run: Run, items: MakeItems) -> None:
    found = scores(run, (items("samples", 16), items("real:train", 16), items("real:test", 16)))
    assert found["test"].p > 0.01 and found["test"].low < found["test"].floor < found["test"].high
    assert "16 volumes, 19 features: each covariance has rank 15" in found["test"].note_text


def test_the_largest_difference_is_named(run: Run, items: MakeItems) -> None:
    def brighter(row: np.ndarray) -> None:
        row[0, 12] += 5 * 10.0**12

    edits = {f"i{i}": brighter for i in range(12)}
    found = scores(run, (items("samples", 12, **edits), items("real:train", 12), items("real:test", 12)))
    assert "of real volumes: wavelet-LLL_class_3 +" in found["test"].note_text


def test_replicates_are_logarithms_without_samples_and_patients(run: Run, items: MakeItems) -> None:
    sets = items("samples", 12), items("real:train", 12, patients=6), items("real:test", 12)
    found = {one.reference: one for one in measured(run, sets) if isinstance(one, Replicates)}
    assert set(found) == {"train", "test"} and not found["test"].squared
    assert len(found["train"].samples) == 12 and len(found["train"].real) == 6
    z = rows(sets[2])
    without = [item for item in sets[0] if item.id != "samples-003"]
    matched = found["test"].samples["samples-003"]
    # Fewer volumes than features: the square root of a singular matrix is itself known to about 1e-4 only.
    assert matched == pytest.approx(by_hand(rows(without), z), abs=1e-3)


def test_a_volume_with_a_feature_that_is_not_a_number_has_failed(run: Run, items: MakeItems) -> None:
    def broken(row: np.ndarray) -> None:
        row[0, 4] = np.nan

    sets = items("samples", 12, i2=broken), items("real:train", 12), items("real:test", 12)
    found = scores(run, sets)["test"]
    assert (found.n, found.failed, found.n_reference) == (12, 1, 11)
    odd_real = items("samples", 11), items("real:train", 12, i5=broken), items("real:test", 12)
    found = scores(run, odd_real)["train"]
    assert (found.n, found.failed, found.n_reference) == (11, 0, 11)
    every = {f"i{i}": broken for i in range(12)}
    none = scores(run, (items("samples", 12, **every), items("real:train", 12), items("real:test", 12)))
    assert none["test"].status == "not_run" and "12 of 12 samples failed" in none["test"].reason


def test_reasons(run: Run, items: MakeItems, tmp_path: Path) -> None:
    few = scores(run, (items("samples", 5), items("real:train", 12), items("real:test", 12)))
    assert {one.status for one in few.values()} == {"not_run"} and len(few) == 2
    assert "5 samples; frd needs at least 8" in few["test"].reason
    real = items("real:test", 12)
    copies = [Item(f"samples-{i}", "samples", item.path) for i, item in enumerate(real)]
    same = scores(run, (copies, items("real:train", 12), real))
    assert same["test"].status == "not_run" and "logarithm of a distance of 0" in same["test"].reason
    assert same["train"].status == "ok"

    def flat(row: np.ndarray) -> None:
        row[:] = 3

    every = {f"i{i}": flat for i in range(12)}
    constant = scores(run, (items("samples", 12), items("real:train", 12, **every), items("real:test", 12)))
    assert constant["train"].reason == "no feature varies between the real train volumes"
    assert constant["test"].status == "ok"
    save_state(real[0].path, {"volume": np.zeros((1, 3), np.float32)})
    with pytest.raises(UserError, match=r"expected \(1, 20\): extract them again"):
        scores(run, (items("samples", 12), items("real:train", 12), real))


def test_the_voxel_size_and_the_form_are_said(run: Run, items: MakeItems) -> None:
    sets = items("samples", 10), items("real:train", 10), items("real:test", 10)
    assert "median of the training volumes is assumed" in scores(run, sets)["test"].note_text
    known = DATA.model_copy(update={"grid": Grid(shape=(64, 64, 48), spacing=(1, 1, 1))})
    found = scores(run, sets, data=known, intensities="hu")
    assert "assumed" not in found["test"].note_text and "HU kept: not comparable" in found["test"].note_text
    ids = [protocol_of("frd", FRD(FRDConfig.model_validate(one)), DATA)[0] for one in ({}, FRD.variants["hu"])]
    assert ids[0].startswith("frd-normalised-") and ids[1].startswith("frd-hu-")
    assert not isinstance(FRD(FRDConfig()), HasReference)
