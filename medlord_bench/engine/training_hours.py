"""Hours of the arms of a metric that trains (`contracts.arms`): a probe on this machine, predictions, and a budget."""

from __future__ import annotations

import json
import logging
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medlord_bench.contracts import specs
from medlord_bench.contracts.arms import Arm
from medlord_bench.contracts.specs import PluginSpec
from medlord_bench.engine import lease
from medlord_bench.engine.plan import Plan, Step
from medlord_bench.engine.planner import build
from medlord_bench.engine.planning import REAL
from medlord_bench.engine.resolve import RunSpec
from medlord_bench.engine.runner import carry_out_steps
from medlord_bench.engine.steps import arms
from medlord_bench.engine.steps.job import Job
from medlord_bench.engine.steps.labelled import real_cases
from medlord_bench.engine.steps.training_plan import PLAN, TrainingPlan
from medlord_bench.engine.store import Store, arm_training
from medlord_bench.engine.worker import Settings, context, output, pick_device
from medlord_bench.util.files import write_json
from medlord_bench.util.stopping import Stopper

log = logging.getLogger("medlord_bench")


@dataclass(frozen=True)
class Hours:
    """Predicted training of a step of arms. trained: arms that are there already. on: the machine of the probe."""

    step: str
    arms: int
    seeds: int
    trained: int
    hours: float
    on: str


def hours(plan: Plan, store: Store, device: str) -> list[Hours]:
    """Of every step of arms whose plan was probed on such a device; none without a probe."""
    found = []
    for step in plan.steps:
        if step.kind != arms.Arms.name:
            continue
        known = _probe(store, plan.step(step.inputs["plan"]), device)
        if known is None:
            continue
        every = arms.Detail.model_validate(step.detail).arms
        todo = set(output(store, step).missing(step.items))
        metric, validation = specs.make("metrics", step.plugin), len(plan.splits["val"])
        predicted = sum(metric.hours(arm, validation, known["speeds"]) for arm in every if arm.item in todo)
        names = {arm.name for arm in every}
        found.append(
            Hours(step.id, len(names), len(every) // max(len(names), 1), len(every) - len(todo), predicted, known["on"])
        )
    return found


def probe(plan: Plan, settings: Settings, stopper: Stopper) -> None:
    """Measure the speed of every training plan that was not probed on this device: makes the images and that plan, and
    trains a few iterations."""
    store, device = Store(settings.store), pick_device(settings.device)
    for step in plan.steps:
        if step.kind != TrainingPlan.name or _probe(store, step, device) is not None:
            continue
        carry_out_steps(plan, [plan.step("images"), step], settings, stopper)
        _measure(plan, step, store, settings, stopper)


def fitted(spec: RunSpec, settings: Settings, stopper: Stopper | None) -> RunSpec:
    """The run with the arms that fit the budget of each metric that has one; a probe measures how fast this machine is.

    stopper: None makes no probe; the run is then unchanged unless one was made before.
    """
    if not any(metric.config.get("budget_hours") for metric in spec.metrics):
        return spec
    plan = build(spec)
    if stopper is not None:
        probe(plan, settings, stopper)
    store, device = Store(settings.store), pick_device(settings.device)
    return spec.model_copy(update={"metrics": tuple(_fit(metric, plan, store, device) for metric in spec.metrics)})


def _fit(spec: PluginSpec, plan: Plan, store: Store, device: str) -> PluginSpec:
    budget = spec.config.get("budget_hours")
    shared = next((step for step in plan.steps if step.id == f"{TrainingPlan.name}:{spec.name}"), None)
    known = None if shared is None else _probe(store, shared, device)
    if not budget or known is None:
        return spec
    metric = specs.make("metrics", spec)
    contestants = sum(
        step.kind == arms.Arms.name and step.contestant != REAL and step.plugin == spec for step in plan.steps
    )

    def needed(every: Sequence[Arm]) -> float:
        """All arms anew: the choice must not depend on what was trained before."""
        each = [(1 if not arm.synthetic else contestants, arm) for arm in every]
        validation = len(plan.splits["val"])
        return float(sum(times * metric.hours(arm, validation, known["speeds"]) for times, arm in each))

    cases = [(item, plan.patients[item]) for item in plan.splits["train"]]
    changes = metric.within(lambda every: needed(every) <= budget, cases)
    log.info("%s: arms within %g hours: %s", spec.name, budget, json.dumps(changes))
    return spec.model_copy(update={"config": {**spec.config, **changes}})


def _place(store: Store, step: Step, device: str) -> Path:
    return output(store, step).path / f"probe-{device.partition(':')[0]}.json"


def _probe(store: Store, step: Step, device: str) -> Mapping[str, Any] | None:
    path = _place(store, step, device)
    return json.loads(path.read_text()) if path.exists() else None


def _measure(plan: Plan, step: Step, store: Store, settings: Settings, stopper: Stopper) -> None:
    import torch

    folder = store.object("trainings", arm_training(step.key, "probe")).path
    with lease.held(folder) as held:
        run = replace(held.guarded(context(folder, step, settings, stopper.stop)), seed=step.seed)
        job = Job(plan, step, store, run)
        cases, validation = (real_cases(job, plan.splits[split]) for split in ("train", "val"))
        speeds = job.plugin("metrics").probe(cases, validation, job.out.items / PLAN, folder / "work", run)
        on = f"{socket.gethostname()}, {run.device}, {torch.get_num_threads()} threads"
        write_json(_place(store, step, run.device), {"speeds": dict(speeds), "on": on})
    shutil.rmtree(folder, ignore_errors=True)
