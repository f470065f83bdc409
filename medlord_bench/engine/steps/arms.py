"""`arms`: one model for each arm and seed of a metric that trains (`contracts.arms`)."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from medlord_bench.contracts import FrozenConfig
from medlord_bench.contracts.arms import Arm
from medlord_bench.contracts.specs import PluginSpec
from medlord_bench.engine import lease
from medlord_bench.engine.plan import Step
from medlord_bench.engine.planning import Planning
from medlord_bench.engine.steps.job import Job
from medlord_bench.engine.steps.kind import Kind
from medlord_bench.engine.steps.labelled import generated_cases, real_cases
from medlord_bench.engine.steps.training_plan import PLAN
from medlord_bench.engine.store import arm_training
from medlord_bench.util import seeds


class Detail(FrozenConfig):
    arms: tuple[Arm, ...]


def plan(
    planning: Planning,
    contestant: str,
    spec: PluginSpec,
    metric: Any,
    arms: Sequence[Arm],
    shared: Step,
    samples: Step | None = None,
) -> Step:
    """The trainings of a contestant's arms. shared: the step that plans them. samples: the generated training cases.

    An arm's content follows from its name, its seed and the cases: the list of arms is not in the key.
    """
    inputs = {"images": "images", "plan": shared.id} | ({} if samples is None else {"samples": samples.id})
    identity = {"version": metric.version, "training": dict(metric.training())}
    identity["cases"] = {split: list(planning.splits[split]) for split in ("train", "val")}
    id, seed = f"{Arms.name}:{contestant}:{spec.name}", seeds.derive(planning.spec.seed, "arms")
    items = [arm.item for arm in arms]
    return planning.add(id, Arms.name, contestant, spec, identity, items, inputs, Detail(arms=tuple(arms)), seed)


class Arms(Kind):
    name: ClassVar[str] = "arms"
    less_memory: ClassVar[str] = "a smaller patch or planner target"

    def run(self, job: Job, items: Sequence[str]) -> None:
        """Train each arm in a folder below `trainings`, publish its model, and remove that folder."""
        metric, cohort = job.plugin("metrics"), job.plan.splits
        arms = {arm.item: arm for arm in Detail.model_validate(job.step.detail).arms}
        validation = real_cases(job, cohort["val"])
        for item in items:
            arm, start = arms[item], time.monotonic()
            cases = real_cases(job, arm.real)
            failed: dict[str, str] = {}
            if arm.synthetic:
                made, failed = generated_cases(job, job.input("samples"), arm.synthetic)
                cases += made
            counts = {"cases": len(cases), "failed_samples": failed, "device": job.run.device}
            if arm.synthetic and len(failed) == len(arm.synthetic):
                first = next(iter(failed.values()))
                job.out.put_failure(
                    item, f"all {len(failed)} generated training cases failed, the first: {first}", counts
                )
                continue
            folder = job.store.object("trainings", arm_training(job.step.key, item)).path
            with lease.held(folder) as held:
                shared, run = job.input("plan").items / PLAN, held.guarded(job.run)
                model, facts = metric.train_arm(arm, cases, validation, shared, folder, run)
                held.check()
                took = {"seconds_of_last_session": round(time.monotonic() - start, 1)}
                job.out.put_folder(item, model, {**counts, **facts, **took})
            shutil.rmtree(folder, ignore_errors=True)
            job.check_stop(item)
