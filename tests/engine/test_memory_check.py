"""Looking ahead before a run: which steps are refused, and what is written down."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from medlord_bench.engine import resolve, run_file
from medlord_bench.engine.memory_check import check, foresee
from medlord_bench.engine.plan import Plan
from medlord_bench.engine.planner import build
from medlord_bench.engine.run_file import RunFile
from medlord_bench.errors import MemoryBudgetError
from tests.commands import SETTINGS


def planned(*generators: str, **sets: Any) -> Plan:
    settings = run_file.parse_sets([s for s in SETTINGS if s.startswith("dataset")]) | sets
    file = RunFile(generators=generators, dataset="phantom", metrics=("fid",), set=settings)
    return build(resolve.resolve(file))


BIG = {"medlord.diffusion.batch": 64, "medlord.diffusion.micro_batch": 64}


def test_a_step_that_cannot_fit_is_refused_with_the_change_that_fits(tmp_path: Path) -> None:
    steps = planned("medlord@smoke", **BIG)
    need = foresee(steps, steps.steps, 24, 1, "cuda")["train:medlord@smoke:diffusion"].need
    assert need is not None
    budget = need.total * 24 / 22.5 - 0.01  # a little too small
    with pytest.raises(MemoryBudgetError, match="step train:medlord@smoke:diffusion") as refused:
        check(steps, steps.steps, budget, 1, "cuda", tmp_path)
    assert "--set medlord.diffusion.micro_batch=32" in str(refused.value)
    check(planned("medlord@smoke", **(BIG | {"medlord.diffusion.micro_batch": 32})), [], budget, 1, "cuda", tmp_path)
    told = json.loads((tmp_path / "forecast.json").read_text())
    assert told == {"budget_gib": budget, "steps": {}}  # nothing to do: nothing was looked at


def test_the_forecast_names_the_stretch_that_takes_the_most_of_a_step(tmp_path: Path) -> None:
    steps = planned("medlord@smoke")
    check(steps, steps.steps, 24, 1, "cuda", tmp_path)
    told = json.loads((tmp_path / "forecast.json").read_text())["steps"]
    found = foresee(steps, steps.steps, 24, 1, "cuda")
    assert set(told) == set(found) and told["samples:medlord@smoke"]["stage"] in ("sample", "decode")
    for id, row in told.items():
        assert row["total_gib"] == pytest.approx(1.05 * row["allocated_gib"] + row["workspace_gib"] + 0.5, abs=0.003)
        assert found[id].contestant == "medlord@smoke"


def test_finished_steps_and_given_weights_get_no_dry_run(tmp_path: Path) -> None:
    steps = planned("medlord@smoke")
    samples = [step for step in steps.steps if step.kind == "samples"]
    assert set(foresee(steps, samples, 24, 1, "cuda")) == {"samples:medlord@smoke"}
    adopted = steps.model_copy(
        update={"contestants": tuple(c.model_copy(update={"weights": tmp_path}) for c in steps.contestants)}
    )
    assert foresee(adopted, adopted.steps, 24, 1, "cuda") == {}


def test_a_generator_without_dry_runs_is_named_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    steps = planned("noise")
    logging.getLogger("medlord_bench").propagate = True
    with caplog.at_level(logging.WARNING, logger="medlord_bench"):
        check(steps, steps.steps, 24, 1, "cuda", tmp_path)
    assert [record.getMessage() for record in caplog.records] == [
        "noise: memory not predictable (generator noise has no dry run); limited to 24 GiB"
    ]
    assert json.loads((tmp_path / "forecast.json").read_text())["steps"] == {}
