"""What a metric gives is checked where it is published: one line that names the metric, and what its quantity declares."""

from __future__ import annotations

from typing import Any

import pytest

from medlord_bench.contracts import Made, Need, Source
from medlord_bench.contracts.metrics import Quantity, quantities_of
from medlord_bench.contracts.results import CaseRow, Replicates, Score
from medlord_bench.engine.steps.scores import _checked, _needs
from medlord_bench.errors import StepError, UserError

ERROR = Quantity(name="edge", meaning="Edges.", unit="HU", better="lower")
WHERE = {"metric": "edge", "protocol": "edge-1", "generator": "a", "dataset": "phantom"}


def checked(result: Any) -> Any:
    return _checked("edges", result, {"edge": ERROR})


def test_unit_and_direction_come_from_the_quantity() -> None:
    score = checked(Score(value=1.0, n=3, **WHERE))
    assert (score.unit, score.better) == ("HU", "lower")
    rates = Quantity(name="edge", meaning="Edges.", better="higher")
    assert _checked("edges", Replicates(value=1.0, samples={}, real={}, **WHERE), {"edge": rates}).better == "higher"


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (Score(value=1.0, better="higher", **WHERE), "better 'higher', its quantity declares 'lower'"),
        (Score(value=1.0, unit="mm", **WHERE), "unit 'mm', its quantity declares 'HU'"),
        (Score(value=1.0, **{**WHERE, "metric": "edges"}), "score of 'edges', expected one of its quantities (edge)"),
        ({"metric": "edge"}, "reduce gave a dict, expected Score, CaseRow or Replicates"),
    ],
)
def test_a_result_that_contradicts_its_declaration_is_one_line(result: Any, told: str) -> None:
    with pytest.raises(StepError) as error:
        checked(result)
    assert str(error.value).startswith("metric edges: ") and told in str(error.value)


def test_a_value_that_is_no_number_was_not_run() -> None:
    score = checked(Score(value=float("nan"), n=3, **WHERE))
    assert (score.status, score.value, score.reason) == ("not_run", None, "the value is not a number (NaN)")


def test_rows_of_cases_pass() -> None:
    row = CaseRow(metric="anything", case="a", value=1.0)
    assert checked(row) is row


@pytest.mark.parametrize(
    ("needs", "told"),
    [
        (lambda: [Need("reconstruction", "states")], "source 'reconstruction', expected one of samples, "),
        (lambda: [Need(Source.SAMPLES, "stats")], "made 'stats', expected one of volumes, features, labels, states"),
        (lambda: [Need(Source.SAMPLES, Made.FEATURES)], "features need one"),
        (lambda: ["samples"], "needs() gave 'samples', expected instances of contracts.Need"),
        (lambda: [], "needs() is empty"),
    ],
)
def test_needs_that_make_no_sense_are_one_line(needs: Any, told: str) -> None:
    metric = type("Edges", (), {"needs": lambda self: needs()})()
    with pytest.raises(UserError) as error:
        _needs("edges", metric)
    assert str(error.value).startswith("metric edges: ") and told in str(error.value) and "\n" not in str(error.value)


def test_one_name_for_two_quantities_names_both_metrics() -> None:
    first, second = (
        type(name, (), {"quantities": (one,)})
        for name, one in (("A", ERROR), ("B", ERROR.model_copy(update={"unit": "mm"})))
    )
    with pytest.raises(UserError, match="quantity 'edge': metrics a and b declare it differently"):
        quantities_of({"a": first, "b": second})
    assert quantities_of({"a": first, "c": first}) == {"edge": ERROR}
