"""Plans the steps of a metric that trains arms: samples, what the arms share, trainings, predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medlord_bench.contracts import Source, specs
from medlord_bench.contracts.arms import Arm, Prediction
from medlord_bench.contracts.specs import PluginSpec
from medlord_bench.engine.plan import Step
from medlord_bench.engine.planning import REAL, Entrant, Planning
from medlord_bench.engine.steps import arms, images, predictions, training_plan, training_samples
from medlord_bench.engine.steps.job import Job


def plan(planning: Planning, entrant: Entrant, spec: PluginSpec, metric: Any, source: Source) -> Step | None:
    """The predictions of a source; None for a contestant without conditional samples, for which nothing is trained.

    The arms of real cases alone are shared by all contestants.
    """
    conditional = planning.steps.get(f"conditional:{entrant.name}")
    if conditional is None:
        return None
    every = metric.arms([(item, planning.patients[item]) for item in planning.splits["train"]])
    outside = _external(planning, spec, metric)
    real = [arm for arm in every if not arm.synthetic]
    own = [arm for arm in every if arm.synthetic]
    shared = training_plan.plan(planning, spec, metric)
    real_arms = arms.plan(planning, REAL, spec, metric, real, shared)
    test = planning.splits["test"]
    if source is Source.REAL_PREDICTIONS:
        items = _of_test(real, test, outside)
        return predictions.plan(planning, REAL, spec, metric, items, {"arms": real_arms} | outside)
    wanted = [one for arm in own for one in arm.synthetic]
    samples = training_samples.plan(planning, entrant, wanted)
    own_arms = arms.plan(planning, entrant.name, spec, metric, own, shared, samples)
    items = _of_test(own, test, outside)
    on_samples = [arm for arm in real if arm.name == metric.predicts_samples]
    items += [Prediction(arm.name, arm.seed, "samples", case) for arm in on_samples for case in test]
    steps = {"arms": own_arms, "real-arms": real_arms, "conditional": conditional} | outside
    return predictions.plan(planning, entrant.name, spec, metric, items, steps)


def _external(planning: Planning, spec: PluginSpec, metric: Any) -> dict[str, Step]:
    """The images of the external test set, by their role; empty without one."""
    if metric.external is None:
        return {}
    named = specs.plugin_spec("datasets", *metric.external)
    return {"external": images.plan_external(planning, named, f"metric {spec.name}: external")}


def _of_test(arms: Sequence[Arm], test: Sequence[str], outside: Mapping[str, Step]) -> list[Prediction]:
    """The test cases, and those of the external set, by each arm."""
    found = []
    for arm in arms:
        found += [Prediction(arm.name, arm.seed, "test", case) for case in test]
        found += [Prediction(arm.name, arm.seed, "external", case) for step in outside.values() for case in step.items]
    return found


def trained(job: Job) -> dict[str, Mapping[str, Any]]:
    """Arm -> the facts of its training, of all arms whose predictions a step of scores reads."""
    made = [job.plan.step(id) for id in job.step.inputs.values()]
    found: dict[str, Mapping[str, Any]] = {}
    for step in made:
        if step.kind == predictions.Predictions.name:
            own = job.plan.step(step.inputs["arms"])
            found |= {item: job.object(own).sidecar(item).facts for item in own.items}
    return found
