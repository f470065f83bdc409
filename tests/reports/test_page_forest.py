"""The first screen: the forest plot, the sentences above it, and the numbers' digits."""

from __future__ import annotations

from pathlib import Path

import pytest

from medlord_bench.contracts.metrics import Headline, Quantity
from medlord_bench.contracts.results import ResultsFile, Score
from medlord_bench.reports.page.conclusions import conclusions
from medlord_bench.reports.page.forest import CENTRE, MARGIN, Forest, forest
from medlord_bench.reports.page.warned import warnings
from medlord_bench.results.comparisons import Comparison
from medlord_bench.results.glance import glance
from medlord_bench.results.run_results import read_run
from medlord_bench.results.words import aligned

FID = Quantity(name="fid", meaning="", better="lower", headline=(Headline(reference="test"),))
MISSING = Quantity(name="rvr_missing", meaning="", better="lower", headline=(Headline(),), by_region="missing regions")
QUANTITIES = {one.name: one for one in (FID, MISSING)}


def fid(name: str, value: float, **changes: object) -> Score:
    fields: dict[str, object] = {
        "metric": "fid",
        "protocol": "p",
        "dataset": "d",
        "reference": "test",
        "better": "lower",
        "n": 40,
    }
    return Score.model_validate(
        {**fields, "generator": name, "value": value, "low": value - 1, "high": value + 1, **changes}
    )


def missing(name: str, region: str, value: float) -> Score:
    return fid(name, value, metric="rvr_missing", region=region, low=None, high=None, floor=0.0)


def pair(first: str, second: str, verdict: str, needed: int | None = None) -> Comparison:
    fields = {"metric": "fid", "protocol": "p", "dataset": "d", "reference": "test", "how": "", "n": 8}
    return Comparison.model_validate(
        {**fields, "first": first, "second": second, "difference": 1, "p": 0.5, "p_holm": 0.5, "verdict": verdict, "n_needed": needed}
    )  # fmt: skip


def plotted(scores: list[Score], comparisons: list[Comparison] = [], controls: tuple[str, ...] = ()) -> Forest:  # noqa: B006
    return forest(glance(scores, comparisons, QUANTITIES, controls), controls)


def test_all_contestants_share_one_axis_and_the_floor_is_a_band() -> None:
    found = plotted([fid("a", 10, floor=5.0), fid("b", 20, floor=5.0)])
    (a, b) = (row.marks[0] for row in found.rows)
    assert (found.axes[0].band or (0, 0))[0] == 0.0
    assert found.axes[0].band == (0.0, MARGIN), "the floor is the least number of the column"
    assert b.high == 100 - MARGIN
    assert a.x == pytest.approx(MARGIN + (100 - 2 * MARGIN) * (10 - 5) / (21 - 5), abs=0.01)
    assert found.axes[0].limits == "floor 5.00"
    assert (a.text, b.text) == ("10.00", "20.00")


def test_the_band_of_a_quantity_to_be_high_ends_on_the_right() -> None:
    found = plotted([fid("a", 10, better="higher", ceiling=30.0), fid("b", 20, better="higher", ceiling=30.0)])
    assert found.axes[0].band == (100 - MARGIN, 100.0)


def test_a_control_beyond_the_axis_is_an_arrow_and_comes_last() -> None:
    found = plotted([fid("noise", 500), fid("a", 10), fid("b", 20)], controls=("noise",))
    assert [row.contestant for row in found.rows] == ["a", "b", "noise"]
    assert [row.control for row in found.rows] == [False, False, True]
    assert [row.marks[0].beyond for row in found.rows] == [0, 0, 1]
    assert found.rows[2].marks[0].low is None


def test_ties_are_joined_from_the_first_to_the_last_of_them() -> None:
    verdicts = [pair("a", "b", "first"), pair("a", "c", "tie", 40), pair("b", "c", "second")]
    found = plotted([fid("a", 10), fid("b", 20), fid("c", 11)], verdicts)
    assert [row.marks[0].word for row in found.rows] == ["tied", "", "tied"]
    assert [row.marks[0].join for row in found.rows] == [(CENTRE, 100.0), (0.0, 100.0), (0.0, CENTRE)]
    assert found.axes[0].joined == found.rows[0].marks[0].x
    assert found.rows[0].marks[0].needed == "n of about 40 needed to decide"


def test_regions_that_all_samples_lack_are_counted_and_others_named() -> None:
    regions = ("aorta", "lungs", "left_atrium", "heart")
    found = plotted(
        [
            *(missing("none", one, 1.0) for one in regions),
            *(missing("some", one, share) for one, share in zip(regions, (0.5, 0.0, 0.25, 0.75), strict=True)),
            *(missing("good", one, 0.0) for one in regions),
        ]
    )
    texts = [row.marks[-1].text for row in found.rows]
    assert texts == ["4 of 4 in all samples", "heart 75%, aorta 50%, 1 more", "none"]


def test_a_contestant_that_was_seen_in_pretraining_carries_the_mark() -> None:
    scores = [fid("a", 10), fid("b", 20)]
    found = forest(glance(scores, [], QUANTITIES, ()), (), {"b": "trained on lidc-idri"})
    assert [row.remark for row in found.rows] == ["", "trained on lidc-idri"]


def test_one_value_has_no_axis() -> None:
    found = plotted([fid("a", 10, low=None, high=None)])
    assert not found.axes[0].drawn and found.rows[0].marks[0].x is None


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.05, 0.03333], ["0.05000", "0.03333"]),
        ([137.1234, 16.5], ["137.1", "16.5"]),
        ([0.9752, None], ["0.9752", "none"]),
        ([12345.6, 3.2], ["12,346", "3"]),
        ([0.03606, -0.00062], ["0.03606", "-0.00062"]),
        ([0.0, 0.0], ["0", "0"]),
        ([float("inf"), 2.5], ["not finite", "2.500"]),
        ([1e-9, 2e-9], ["1.000e-09", "2.000e-09"]),
    ],
)
def test_numbers_of_one_column_have_equal_decimals(values: list[float | None], texts: list[str]) -> None:
    assert aligned(values) == texts


# ------------------------------------------------------------------------------------------------------- sentences
def told(
    tmp_path: Path, scores: list[Score], comparisons: list[Comparison], controls: tuple[str, ...] = ()
) -> tuple[list[str], list[str]]:
    from medlord_bench.contracts.results import write_results
    from medlord_bench.results import comparisons as module

    folder = tmp_path / "run"
    results = ResultsFile(scores=tuple(scores), protocols={}, controls=controls, quantities=tuple(QUANTITIES.values()))
    write_results(folder / "results", results, [])
    module.write(folder / "results", module.ComparisonsFile(comparisons=tuple(comparisons)))
    run = read_run(folder)
    found = conclusions(
        run, glance(run.scores, run.comparisons.comparisons, QUANTITIES, controls), warnings(run.scores)
    )
    return list(found.found), list(found.doubts)


def test_the_best_is_named_and_a_tie_says_what_would_decide_it(tmp_path: Path) -> None:
    scores = [fid("a", 10), fid("b", 20), fid("c", 11)]
    won, _ = told(tmp_path, scores[:2], [pair("a", "b", "first")])
    assert won == ["a is best in fid (test)."]
    tied, _ = told(tmp_path, scores, [pair("a", "b", "first"), pair("a", "c", "tie", 40), pair("b", "c", "second")])
    assert tied == ["The data cannot tell a and c apart in fid (test); about 40 cases would."]


def test_a_winner_whose_samples_failed_is_named_with_them(tmp_path: Path) -> None:
    won, _ = told(tmp_path, [fid("a", 10, n=8, failed=8), fid("b", 20)], [pair("a", "b", "first")])
    assert won == ["a is best in fid (test), but 8 of 8 of its samples failed."]


def test_without_a_test_nobody_is_best_and_the_floor_is_told(tmp_path: Path) -> None:
    found, _ = told(tmp_path, [fid("a", 137.12, floor=16.5)], [])
    assert found == ["a: fid (test) 137.1 (real volumes: 16.5)."]


def test_doubts_name_warnings_failures_few_cases_and_what_was_not_run(tmp_path: Path) -> None:
    scores = [
        fid("a", 10, n=8, failed=2, warning="upside down"),
        fid("a", 0, metric="dsc", status="not_run"),
    ]
    _, doubts = told(tmp_path, scores, [])
    assert doubts == [
        "Warnings on a (fid): see below.",
        "2 of 8 samples of a failed.",
        "Some numbers rest on 8 cases: intervals are wide, and small differences stay hidden.",
        "Not run for any contestant: dsc.",
        "1 more below.",
    ]


def test_controls_raise_no_doubts(tmp_path: Path) -> None:
    _, doubts = told(tmp_path, [fid("a", 10), fid("noise", 99, warning="noise", failed=3)], [], controls=("noise",))
    assert doubts == ["The bench was not calibrated in this store."]
