"""`select`: a stage's checkpoint, selected by the FID of each candidate's samples (paper, A.1) to the validation
split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from medlord_bench.contracts import (
    CheckpointSelection,
    FrozenConfig,
    Request,
    Stage,
    State,
    Volume,
    candidate_name,
    specs,
)
from medlord_bench.contracts.specs import PluginSpec
from medlord_bench.engine.plan import Step
from medlord_bench.engine.planning import Entrant, Planning
from medlord_bench.engine.steps import features
from medlord_bench.engine.steps.job import STATE, Job
from medlord_bench.engine.steps.kind import Kind
from medlord_bench.errors import StepError, UserError
from medlord_bench.util import seeds
from medlord_bench.volumes.arrays import load_state
from medlord_bench.volumes.checks import problem_of


class Detail(FrozenConfig):
    """others: the other stages that sampling reads. candidates: training steps. samples: volumes of each candidate."""

    stage: str
    others: tuple[str, ...]
    candidates: tuple[int, ...]
    samples: int
    extractor: PluginSpec


def plan(planning: Planning, entrant: Entrant, stage: Stage, choice: CheckpointSelection) -> Step:
    """Select one of a training's candidates by the FID of its samples to the validation split."""
    reads, steps = entrant.generator.dependencies("sample"), stage.steps or 0
    if stage.name not in reads.stages:
        raise UserError(f"{entrant.name}: stage {stage.name} is not used in sampling; select it by loss")
    others = tuple(name for name in reads.stages if name != stage.name)
    inputs = {name: entrant.weights(name) for name in others}
    extractor = specs.plugin_spec("extractors", choice.extractor, {})
    real = features.plan(planning, extractor, planning.steps["images"], planning.splits["val"])
    inputs |= {"candidates": entrant.training(stage.name), "val": real.id}
    identity: dict[str, Any] = {"version": entrant.generator.version, "config": entrant.decides(reads)}
    identity |= {"choice": asdict(choice), "stage": stage.name, "steps": steps}
    identity |= {"grid": planning.protocol.grid.model_dump(mode="json")}
    detail = Detail(
        stage=stage.name,
        others=others,
        candidates=choice.candidates(steps),
        samples=choice.samples,
        extractor=extractor,
    )
    seed = seeds.derive(planning.spec.seed, "select")
    id = entrant.weights(stage.name)
    return planning.add(id, "select", entrant.name, entrant.plugin, identity, ["weights"], inputs, detail, seed)


class Select(Kind):
    name: ClassVar[str] = "select"
    sharded: ClassVar[bool] = False
    alone: ClassVar[bool] = True
    less_memory: ClassVar[str] = "--batch 1, or smaller tiles"

    def during(self, step: Step) -> str | None:
        return "sample"

    def volumes_to_sample(self, step: Step) -> int | None:
        detail = Detail.model_validate(step.detail)
        return len(detail.candidates) * detail.samples

    def run(self, job: Job, items: Sequence[str]) -> None:
        """Sample from every candidate with the same noise; publish the one of the lowest FID. In a tie the earlier is
        selected."""
        real = job.input("val")
        reference = [load_state(real.file(item, STATE)) for item in job.plan.splits["val"]]
        found: dict[int, float] = {}
        candidates = _reached(job)
        with job.run.progress.task(
            f"select {Detail.model_validate(job.step.detail).stage} {job.step.contestant}", len(candidates)
        ) as task:
            for step in candidates:
                name = candidate_name(step)
                if not job.out.has(name):  # each is published when finished, so that a stop loses at most one
                    result = _candidate(job, job.input("candidates").items / "weights" / name, reference)
                    job.out.put(name, {}, result)
                    job.check_stop(name)
                fid = job.out.sidecar(name).facts["fid"]
                found[step] = math.inf if fid is None else float(fid)
                task.advance()
        best = min(found, key=lambda step: found[step])
        if not math.isfinite(found[best]):
            raise StepError(
                f"{job.step.id}: no candidate produced two valid CT samples; train longer, or select by loss"
            )
        job.run.log.info("%s: step %d, FID %.4g on val", job.step.id, best, found[best])
        facts = {"steps": best, "fid_val": {str(step): fid for step, fid in found.items() if math.isfinite(fid)}}
        job.out.put_folder("weights", job.input("candidates").items / "weights" / candidate_name(best), facts)


def _reached(job: Job) -> list[int]:
    """The planned candidates; if a time budget ended the training early, those it reached and its last step."""
    end = job.input("candidates").sidecar("weights").facts["trained"]["steps"]
    return sorted({end, *(step for step in Detail.model_validate(job.step.detail).candidates if step < end)})


def _candidate(job: Job, weights: Path, reference: Sequence[State]) -> dict[str, Any]:
    """{"fid": mean of the planes or None, "samples", "failed"} of one candidate."""
    detail = Detail.model_validate(job.step.detail)
    generator = job.plugin("generators")
    paths = {name: job.input(name).items / "weights" for name in detail.others} | {detail.stage: weights}
    grid = job.plan.protocol.grid
    requests = [Request(i, seeds.derive(job.step.seed, "sample", i), grid) for i in range(detail.samples)]
    extractor = specs.make("extractors", detail.extractor)
    made = generator.sample(paths, requests, job.run)
    good = (volume for volume in made if isinstance(volume, Volume) and problem_of(volume, grid.shape) is None)
    states = list(extractor.features(good, job.run))
    fid = _fid(states, reference) if len(states) > 1 else None
    return {"fid": fid, "samples": len(requests), "failed": len(requests) - len(states)}


def _fid(samples: Sequence[State], reference: Sequence[State]) -> float:
    """Mean over planes of the Frechet distance of all slices."""
    from medlord_bench.stats import frechet_distance

    pooled = _pooled(samples), _pooled(reference)
    return float(np.mean([frechet_distance(pooled[0][plane], pooled[1][plane]) for plane in pooled[0]]))


def _pooled(states: Sequence[State]) -> Mapping[str, Any]:
    return {plane: np.concatenate([state[plane] for state in states]) for plane in states[0]}
