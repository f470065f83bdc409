"""Samples for the masks of the training split: who reads them, and that they are drawn once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medlord_bench.api import run as bench_run
from medlord_bench.engine.plan import Plan
from medlord_bench.engine.planner import build
from medlord_bench.engine.resolve import resolve
from medlord_bench.engine.run_file import RunFile

SETTINGS = {"dataset.shape": [32, 32, 24], "dataset.n_train": 8, "dataset.n_val": 1, "dataset.n_test": 8}


def planned(*metrics: str, generator: str = "copycat:masks", **more: Any) -> Plan:
    file = RunFile(generators=(generator,), dataset="phantom", metrics=metrics, set=SETTINGS | more)
    return build(resolve(file))


def kinds(plan: Plan) -> list[str]:
    return [step.kind for step in plan.steps]


def test_the_audit_of_masks_reads_one_sample_for_each_training_mask() -> None:
    plan = planned("memorisation:masks")
    step = plan.step("training-samples:copycat:masks")
    assert step.items == plan.splits["train"]
    assert "training-samples" not in kinds(planned("memorisation"))
    assert "training-samples" not in kinds(planned("memorisation:masks", generator="copycat"))


@pytest.mark.parametrize("order", [1, -1])
def test_the_samples_are_those_that_segmenters_are_trained_on(order: int) -> None:
    metrics = ("memorisation:masks", "downstream:doses")[::order]
    plan = planned(*metrics, **{"downstream.doses": [0.5, 1.0], "downstream.multiples": [0, 1, 2]})
    (step,) = [step for step in plan.steps if step.kind == "training-samples"]
    train = plan.splits["train"]
    assert step.items[: len(train)] == train and len(step.items) == 2 * len(train)
    assert step.key == planned("memorisation:masks").step(step.id).key
    states = plan.step("states:training-samples:copycat:masks:memorisation:masks")
    assert states.items == train, "the audit reads the first sample of each mask"


def test_copies_of_the_masks_patients_are_found_and_noise_is_not(tmp_path: Path) -> None:
    done = bench_run(
        ("copycat:masks", "noise:masks"),
        "phantom",
        metrics=("memorisation:masks",),
        set=SETTINGS,
        store=tmp_path,
        device="cpu",
    )
    rates = {one.generator: one for one in done.run.scores if one.metric == "mask_copy_rate"}
    assert rates["copycat:masks"].value == 1 and rates["copycat:masks"].warning
    assert rates["noise:masks"].value < 0.5 and not rates["noise:masks"].warning
