"""What `calibrate --slow` expects of trained segmenters."""

from __future__ import annotations

from typing import Any

import pytest

from medlord_bench.checks.calibration.trained import COPIES, NOISE, trained_experiment, trained_findings
from medlord_bench.contracts.calibration import Seen
from medlord_bench.contracts.results import ResultsFile, Score
from medlord_bench.engine.resolve import resolve
from medlord_bench.engine.run_file import RunFile

Pair = tuple[float, float]


def statuses(noise: Pair, copies: Pair, again: Pair, copied: float, warned: str) -> list[str]:
    """(difference, p) of each; the copy rate of copies; the control that has a warning of copies."""
    given = (
        ("dt_gain_synthetic", NOISE, noise),
        ("dt_gain_synthetic", COPIES, copies),
        ("dt_gain_real_other_seed", COPIES, again),
    )
    scores = [
        Score(metric=metric, generator=name, value=value, p=p, protocol="d", dataset="phantom", reference="test")
        for metric, name, (value, p) in given
    ]
    scores += [
        Score(
            metric="mask_copy_rate",
            generator=name,
            value=value,
            protocol="m",
            dataset="phantom",
            reference="train",
            warning="copies" if name in warned.split() else "",
        )
        for name, value in ((COPIES, copied), (NOISE, 0.1))
    ]
    return [one.status for one in trained_findings(Seen(ResultsFile(scores=tuple(scores), protocols={})))]


SOUND = {"noise": (-0.7, 0.001), "copies": (-0.01, 0.2), "again": (-0.01, 0.6), "copied": 1.0, "warned": COPIES}


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({}, None),
        ({"noise": (-0.01, 0.4)}, 0),
        ({"noise": (0.2, 0.001)}, 0),
        ({"copies": (-0.2, 0.001)}, 1),
        ({"again": (-0.1, 0.01)}, 2),
        ({"again": (0.1, 0.01)}, 2),
        ({"again": (-0.03, 0.01)}, None),
        ({"again": (-0.1, 0.3)}, None),
        ({"copied": 0.8}, 3),
        ({"warned": ""}, 3),
        ({"warned": f"{COPIES} {NOISE}"}, 4),
    ],
)
def test_known_answers(change: dict[str, Any], wrong: int | None) -> None:
    assert statuses(**(SOUND | change)) == ["failed" if place == wrong else "ok" for place in range(5)]


def test_without_scores_nothing_is_checked() -> None:
    found = list(trained_findings(Seen(ResultsFile(scores=(), protocols={}))))
    assert [one.status for one in found] == ["not_checked"] * 5


def test_the_run_is_one_of_controls_that_take_masks() -> None:
    file = RunFile(dataset="phantom", set={"dataset.n_test": 7, "fid.minimum": 2, "downstream.epochs": 3})
    spec = resolve(trained_experiment(file))
    assert [one.name for one in spec.contestants] == [NOISE, COPIES]
    metric, audit = spec.metrics
    assert (
        audit.name == "memorisation:masks"
        and metric.config["epochs"] == 3
        and "real-other-seed" in metric.config["arms"]
    )
    assert spec.dataset.config["n_test"] == 7 and spec.samples == 0
