"""What `calibrate --slow` expects of trained segmenters."""

from __future__ import annotations

import pytest

from medlord_bench.checks.calibration.trained import COPIES, NOISE, trained_experiment, trained_findings
from medlord_bench.contracts.calibration import Seen
from medlord_bench.contracts.results import ResultsFile, Score
from medlord_bench.engine.resolve import resolve
from medlord_bench.engine.run_file import RunFile


def statuses(noise: tuple[float, float], copies: tuple[float, float], again: tuple[float, float]) -> list[str]:
    """(difference, p) of each."""
    given = (
        ("dt_gain_synthetic", NOISE, noise),
        ("dt_gain_synthetic", COPIES, copies),
        ("dt_gain_real_other_seed", COPIES, again),
    )
    scores = [
        Score(metric=metric, generator=name, value=value, p=p, protocol="d", dataset="phantom", reference="test")
        for metric, name, (value, p) in given
    ]
    return [one.status for one in trained_findings(Seen(ResultsFile(scores=tuple(scores), protocols={})))]


SOUND = {"noise": (-0.7, 0.001), "copies": (-0.01, 0.2), "again": (-0.01, 0.6)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ["ok", "ok", "ok"]),
        ({"noise": (-0.01, 0.4)}, ["failed", "ok", "ok"]),
        ({"noise": (0.2, 0.001)}, ["failed", "ok", "ok"]),
        ({"copies": (-0.2, 0.001)}, ["ok", "failed", "ok"]),
        ({"again": (-0.1, 0.01)}, ["ok", "ok", "failed"]),
        ({"again": (0.1, 0.01)}, ["ok", "ok", "failed"]),
        ({"again": (-0.03, 0.01)}, ["ok", "ok", "ok"]),
        ({"again": (-0.1, 0.3)}, ["ok", "ok", "ok"]),
    ],
)
def test_known_answers(change: dict[str, tuple[float, float]], expected: list[str]) -> None:
    assert statuses(**(SOUND | change)) == expected


def test_without_scores_nothing_is_checked() -> None:
    found = list(trained_findings(Seen(ResultsFile(scores=(), protocols={}))))
    assert [one.status for one in found] == ["not_checked"] * 3


def test_the_run_is_one_of_controls_that_take_masks() -> None:
    file = RunFile(dataset="phantom", set={"dataset.n_test": 7, "fid.minimum": 2, "downstream.epochs": 3})
    spec = resolve(trained_experiment(file))
    assert [one.name for one in spec.contestants] == [NOISE, COPIES]
    (metric,) = spec.metrics
    assert metric.config["epochs"] == 3 and "real-other-seed" in metric.config["arms"]
    assert spec.dataset.config["n_test"] == 7 and spec.samples == 0
