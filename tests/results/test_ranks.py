"""Intervals of ranks: known orders, ties, reasons, and coverage on simulated data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from medlord_bench.contracts.results import CaseRow, Replicates, ResultsFile, Score
from medlord_bench.results import ranks as module
from medlord_bench.results.comparisons import ComparisonsFile
from medlord_bench.results.places import Key
from medlord_bench.results.ranks import Ranks, ranks
from medlord_bench.results.run_results import RunResults

FID = Key("fid", "", "test", "p", "d")
DSC = Key("dsc", "aorta", "", "q", "d")
N = 16


def run(
    scores: Sequence[Score], rows: Sequence[CaseRow] = (), replicates: Sequence[Replicates] = (), controls: str = ""
) -> RunResults:
    empty = dict.fromkeys(("origins", "steps", "curves", "efforts", "missing"), ())
    none = dict.fromkeys(("started", "calibration", "montage"))
    return RunResults(
        name="r", dataset="d", synthetic=True, budget="", references={}, comparisons=ComparisonsFile(),
        contestants=list(dict.fromkeys(score.generator for score in scores)), rows=rows, replicates=replicates,
        results=ResultsFile(scores=tuple(scores), protocols={}, controls=tuple(controls)), **empty, **none,
    )  # fmt: skip


def distance(name: str, value: float, samples: np.ndarray, real: np.ndarray) -> tuple[Score, Replicates]:
    """A distance whose leave-one-out values are those of a mean."""
    fields = {**FID._asdict(), "generator": name, "value": value, "better": "lower"}

    def left_out(units: np.ndarray) -> dict[str, float]:
        return {f"u{i}": value - (x - units.mean()) / (len(units) - 1) for i, x in enumerate(units)}

    return Score(**fields), Replicates(**fields, samples=left_out(samples), real=left_out(real))


def simulated(truth: Sequence[float], rng: np.random.Generator, shared: float = 1.0) -> RunResults:
    """Distances with a large effect of the real patients that all contestants share."""
    real = rng.normal(0, shared, N)
    made = []
    for name, true in zip("abcdefgh", truth, strict=False):
        samples, own = rng.normal(0, 1, N), rng.normal(0, 0.3, N)
        made.append(distance(name, true + samples.mean() + (real + own).mean(), samples, real + own))
    return run([score for score, _ in made], replicates=[one for _, one in made])


def cases(truth: Sequence[float], rng: np.random.Generator) -> RunResults:
    patients = rng.normal(0, 1, N)
    scores, rows = [], []
    for name, true in zip("abcdefgh", truth, strict=False):
        values = true + patients + rng.normal(0, 0.5, N)
        scores.append(Score(**DSC._asdict(), generator=name, value=float(np.median(values)), better="higher"))
        rows += [
            CaseRow(metric="dsc", generator=name, case=f"c{i}", patient=f"p{i}", region="aorta", value=float(x))
            for i, x in enumerate(values)
        ]
    return run(scores, rows)


def test_far_apart_contestants_have_one_rank_each() -> None:
    found = ranks(simulated([9.0, 0.0, 30.0], np.random.default_rng(0)))[FID]
    assert dict(found.intervals) == {"a": (2, 2), "b": (1, 1), "c": (3, 3)}
    assert (found.of, found.how, found.reason) == (3, module.JACKKNIFE, "")


def test_the_shared_real_set_makes_no_rank_uncertain() -> None:
    rng = np.random.default_rng(1)
    found = ranks(simulated([0.0, 3.0], rng, shared=50.0))[FID]
    assert dict(found.intervals) == {"a": (1, 1), "b": (2, 2)}


def test_higher_is_better_where_the_quantity_says_so() -> None:
    found = ranks(cases([0.0, 5.0], np.random.default_rng(2)))[DSC]
    assert dict(found.intervals) == {"a": (2, 2), "b": (1, 1)} and found.how == module.BOOTSTRAP


def test_equal_contestants_share_all_ranks() -> None:
    same = [distance(name, 1.0, np.zeros(N), np.zeros(N)) for name in "abc"]
    found = ranks(run([score for score, _ in same], replicates=[one for _, one in same]))[FID]
    assert set(found.intervals.values()) == {(1, 3)}


def test_controls_have_no_rank_and_take_none() -> None:
    made = simulated([9.0, 0.0, 30.0], np.random.default_rng(0))
    assert made.results is not None
    made = dataclasses.replace(made, results=made.results.model_copy(update={"controls": ("b",)}))
    assert dict(ranks(made)[FID].intervals) == {"a": (1, 1), "c": (2, 2)}


def test_the_same_results_give_the_same_ranks() -> None:
    made = simulated([0.0, 0.2, 0.4, 0.5], np.random.default_rng(3))
    assert ranks(made) == ranks(made)


def test_a_missed_structure_ranks_last() -> None:
    made = cases([0.0, 1.0], np.random.default_rng(2))
    rows = [row.model_copy(update={"value": -np.inf}) if row.generator == "b" else row for row in made.rows]
    assert dict(ranks(dataclasses.replace(made, rows=rows))[DSC].intervals) == {"a": (1, 1), "b": (2, 2)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda made: {"replicates": made.replicates[:1]}, "b has no leave-one-out values"),
        (lambda made: {"replicates": ()}, "neither leave-one-out values nor numbers by patient"),
        (lambda made: {"contestants": ["a"]}, "a single contestant has a value"),
        (
            lambda made: {"replicates": [made.replicates[0], made.replicates[1].model_copy(update={"real": {"x": 1.0}})]},
            "different real volumes",
        ),
    ],
)  # fmt: skip
def test_a_rank_that_cannot_be_computed_says_why(change, reason: str) -> None:
    made = simulated([0.0, 1.0], np.random.default_rng(0))
    found = ranks(dataclasses.replace(made, **change(made)))[FID]
    assert not found.intervals and reason in found.reason


def test_few_patients_and_rows_of_several_protocols_give_no_rank() -> None:
    made = cases([0.0, 1.0], np.random.default_rng(0))
    few = [row for row in made.rows if row.patient in ("p0", "p1", "p2", "p3", "p4")]
    assert ranks(dataclasses.replace(made, rows=few))[DSC].reason == "5 shared patients, at least 6 are needed"
    assert made.results is not None
    other = [score.model_copy(update={"protocol": "other"}) for score in made.scores]
    results = made.results.model_copy(update={"scores": (*made.scores, *other)})
    assert "several protocols" in ranks(dataclasses.replace(made, results=results))[DSC].reason
    assert "several protocols" in str(Ranks(reason="several protocols"))


@pytest.mark.parametrize("simulate", [simulated, cases])
@pytest.mark.parametrize(("gap", "covered"), [(0.01, 0.85), (0.1, 0.95), (0.3, 0.95), (1.0, 0.95)])
def test_true_ranks_are_inside_as_often_as_documented(
    simulate, gap: float, covered: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The standard error of a contestant is about 0.35, without the part that all share."""
    monkeypatch.setattr(module, "DRAWS", 1000)
    inside = []
    for seed in range(200):
        (found,) = ranks(simulate([gap * i for i in range(5)], np.random.default_rng(seed))).values()
        for place, name in enumerate("abcde"):
            low, high = found.intervals[name]
            inside.append(low <= (place + 1 if simulate is simulated else 5 - place) <= high)
    assert np.mean(inside) >= covered - 2 * (covered * (1 - covered) / 200) ** 0.5  # 200 simulations are independent
