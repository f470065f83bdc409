"""Training sets: equal numbers where arms are compared, halves by patient, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from medlord_bench.contracts.arms import Arm, Prediction, Synthetic
from medlord_bench.errors import UserError
from medlord_bench.metrics.downstream.arms import Dose, chosen, define
from medlord_bench.metrics.downstream.config import ARMS, DownstreamConfig
from medlord_bench.metrics.downstream.metric import Downstream

CASES = [(f"case-{i}", f"patient-{i // 2}") for i in range(20)]  # two cases a patient


def arms(*names: str, seeds: int = 1) -> dict[str, Arm]:
    return {arm.item: arm for arm in define(DownstreamConfig(arms=names).arms, seeds, CASES)}


def test_arms_that_are_compared_have_equal_cases_and_iterations() -> None:
    found = arms(*ARMS)
    size = {name: (len(arm.real), len(arm.synthetic), arm.length) for name, arm in found.items()}
    assert size == {
        "real.seed0": (20, 0, 1),
        "synthetic.seed0": (0, 20, 1),
        "mixed.seed0": (10, 10, 1),
        "real+synthetic.seed0": (20, 20, 2),
        "real-longer.seed0": (20, 0, 2),
        "real-other-seed.seed1000": (20, 0, 1),
    }
    assert {(one.case, one.draw) for one in found["synthetic.seed0"].synthetic} == {(item, 1) for item, _ in CASES}


def test_mixed_has_each_mask_once_and_splits_no_patient() -> None:
    mixed = arms("mixed")["mixed.seed0"]
    made = {one.case for one in mixed.synthetic}
    assert made.isdisjoint(mixed.real) and len(made) + len(mixed.real) == len(CASES)
    patients = dict(CASES)
    assert {patients[case] for case in made}.isdisjoint({patients[case] for case in mixed.real})


def test_real_is_always_trained_and_the_order_is_stated() -> None:
    assert list(arms("mixed", "synthetic", seeds=2)) == [
        *("real.seed0", "real.seed1", "synthetic.seed0", "synthetic.seed1", "mixed.seed0", "mixed.seed1")
    ]


def test_smaller_fractions_are_part_of_larger_ones() -> None:
    sets = [chosen(CASES, fraction) for fraction in (0.1, 0.25, 0.5, 1.0)]
    assert [len(one) for one in sets] == [2, 4, 10, 20]
    assert all(small < large for small, large in zip(sets, sets[1:], strict=False))
    assert chosen(list(reversed(CASES)), 0.5) == sets[2]


def test_too_few_cases_are_refused_before_any_work() -> None:
    with pytest.raises(UserError, match="metric downstream: 1 training cases, expected at least 2: give more"):
        define(("real",), 1, CASES[:1])


def test_item_ids_name_their_predictions() -> None:
    for one in (
        Prediction("real+synthetic", 3, "test", "a--b.seed1--c"),
        Prediction("real-other-seed", 1000, "samples", "x"),
    ):
        assert Prediction.parse(one.item) == one
    assert Synthetic(case="a", draw=1).item == "a" and Synthetic(case="a", draw=2).item == "a--2"


def test_doses_have_equal_iterations_and_reuse_equal_arms() -> None:
    doses = [Dose(real, multiple) for real in (0.25, 1.0) for multiple in (0, 1, 2)]
    found = {arm.name: arm for arm in define(("real", "synthetic", "real+synthetic"), 1, CASES, doses)}
    size = {name: (len(arm.real), len(arm.synthetic), arm.length) for name, arm in found.items()}
    assert size == {
        "real": (20, 0, 1),
        "synthetic": (0, 20, 1),
        "real+synthetic": (20, 20, 2),
        "real-25pct+0x": (4, 0, 2),
        "real-25pct+1x": (4, 4, 2),
        "real-25pct+2x": (4, 8, 2),
        "real-longer": (20, 0, 2),
        "real-100pct+2x": (20, 40, 2),
    }
    twice = found["real-25pct+2x"]
    assert {one.case for one in twice.synthetic} == set(twice.real), "samples for the masks of its own cases alone"
    assert len({one.item for one in twice.synthetic}) == 8


def test_a_dose_of_too_few_cases_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"dose 0.1 of 4 training cases is 1, expected at least 2: set downstream.doses"
    ):
        define(("real",), 1, [(f"c{i}", f"p{i}") for i in range(4)], [Dose(0.1, 0)])


@pytest.mark.parametrize("settings", [{"doses": [0]}, {"doses": [1.5]}, {"multiples": [1]}, {"multiples": [0, 9]}])
def test_doses_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="expected"):
        DownstreamConfig(**settings)


def test_a_budget_keeps_the_first_arms_in_the_stated_order() -> None:
    settings = {"arms": ARMS, "doses": (0.25, 0.5, 1.0), "multiples": (0, 1), "budget_hours": 1.0}
    metric = Downstream(DownstreamConfig(**settings))
    order = ["real+synthetic", "real-longer", "real-other-seed", "mixed", "dose 1", "dose 0.5", "dose 0.25"]
    full = metric.within(lambda arms: True, CASES)
    assert full == {"arms": list(ARMS), "doses": [0.25, 0.5, 1.0], "over_budget": [], "budget_hours": None}
    for most in range(2, 6):  # the dose 1 adds no arm to all six
        found = metric.within(lambda arms, most=most: len(arms) <= most, CASES)  # type: ignore[misc]
        assert found["over_budget"] == order[most - 2 :] and found["arms"] == list(ARMS)[:most] and found["doses"] == []
    assert metric.within(lambda arms: sum(arm.length for arm in arms) < 14, CASES)["doses"] == [0.5, 1.0]
    with pytest.raises(UserError, match="real and synthetic do not fit into budget_hours 1: give more hours"):
        metric.within(lambda arms: False, CASES)
