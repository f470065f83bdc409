"""`training-plan`: what all arms of a metric share, decided once from the real training cases."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any, ClassVar

from medlord_bench.contracts.specs import PluginSpec
from medlord_bench.engine import lease
from medlord_bench.engine.plan import Step
from medlord_bench.engine.planning import REAL, Planning
from medlord_bench.engine.steps import twins
from medlord_bench.engine.steps.job import Job
from medlord_bench.engine.steps.kind import Kind
from medlord_bench.engine.steps.labelled import real_cases
from medlord_bench.engine.store import arm_training
from medlord_bench.util import seeds

PLAN = "plan"  # its one item


def plan(planning: Planning, spec: PluginSpec, metric: Any) -> Step:
    """The plan of a metric's trainings; one step for all contestants."""
    identity = {
        "version": metric.version,
        "training": dict(metric.training()),
        "cases": list(planning.splits["train"]),
    }
    seed = seeds.derive(planning.spec.seed, "arms")
    inputs = {"images": "images"}
    return planning.add(
        f"{TrainingPlan.name}:{spec.name}", TrainingPlan.name, REAL, spec, identity, [PLAN], inputs, seed=seed
    )


class TrainingPlan(Kind):
    name: ClassVar[str] = "training-plan"
    sharded: ClassVar[bool] = False
    alone: ClassVar[bool] = True
    less_memory: ClassVar[str] = "a smaller grid, or fewer training cases"

    def run(self, job: Job, items: Sequence[str]) -> None:
        twins.check(job)
        cases = real_cases(job, job.plan.splits["train"])
        folder = job.store.object("trainings", arm_training(job.step.key, PLAN)).path
        with lease.held(folder) as held:
            made = job.plugin("metrics").plan_training(cases, folder, held.guarded(job.run))
            held.check()
            job.out.put_folder(PLAN, made, {})
        shutil.rmtree(folder, ignore_errors=True)
