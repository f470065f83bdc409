"""`weights`: one training stage of one contestant, or weights adopted with `--weights`."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from medlord_bench.contracts import CheckpointSelection, FrozenConfig, Stage
from medlord_bench.engine import lease
from medlord_bench.engine.plan import Step
from medlord_bench.engine.planning import Entrant, Planning
from medlord_bench.engine.steps.job import Job
from medlord_bench.engine.steps.kind import Kind
from medlord_bench.engine.store import Store, training_names
from medlord_bench.errors import UserError
from medlord_bench.util import seeds
from medlord_bench.util.files import write_json
from medlord_bench.util.hashing import digest, file_sha256


class Detail(FrozenConfig):
    """steps, seconds: the budget. lineage: the key without the budget: the training's folder. weights: the adopted
    weights."""

    stage: str
    steps: int | None
    seconds: float | None
    choice: CheckpointSelection | None
    lineage: str
    weights: Path | None


def plan(planning: Planning, entrant: Entrant, stage: Stage, seconds: float | None) -> Step:
    """Train a stage for `stage.steps` optimiser steps and at most `seconds`."""
    contestant, plugin = entrant.contestant, entrant.plugin
    inputs = {need: entrant.weights(need) for need in stage.needs} | {"images": "images"}
    identity: dict[str, Any] = {"version": entrant.generator.version, "stage": stage.name}
    identity["config"] = entrant.decides(stage)
    identity["data"] = {split: list(planning.splits[split]) for split in ("train", "val")}
    if stage.conditional:
        identity["regions"] = list(planning.protocol.condition_regions)
    if contestant.weights is not None:  # data are still needed: a latent scale may be measured on the training split
        identity["adopted"] = _sha256_of(contestant.weights)
    seed = seeds.derive(planning.spec.seed, "train")
    keys = {role: planning.steps[step].key for role, step in inputs.items()}
    detail = Detail(
        stage=stage.name,
        steps=stage.steps,
        seconds=seconds,
        choice=stage.choice,
        lineage=digest(identity | {"plugin": plugin.plugin, "seed": seed, "inputs": keys}),
        weights=None if contestant.weights is None else contestant.weights.resolve(),
    )
    identity |= {"steps": stage.steps}
    identity |= {} if seconds is None else {"seconds": seconds}
    id = entrant.training(stage.name)
    return planning.add(id, "weights", entrant.name, plugin, identity, ["weights"], inputs, detail, seed)


def _sha256_of(weights: Path) -> dict[str, str]:
    """sha256 of every file that `--weights` names."""
    if not weights.exists():
        raise UserError(f"--weights {weights}: not found; expected a checkpoint file or a folder of them")
    files = [weights]
    if weights.is_dir():  # a run's `weights` folder holds links to folders
        below = os.walk(weights, followlinks=True)
        files = sorted(Path(folder) / name for folder, _, names in below for name in names)
    if not files:
        raise UserError(f"--weights {weights}: the folder is empty; expected checkpoint files")
    return {str(file.relative_to(weights) if file != weights else file.name): file_sha256(file) for file in files}


class Weights(Kind):
    name: ClassVar[str] = "weights"
    sharded: ClassVar[bool] = False
    alone: ClassVar[bool] = True
    less_memory: ClassVar[str] = "a smaller micro_batch or patch for this stage"

    def during(self, step: Step) -> str | None:
        return Detail.model_validate(step.detail).stage

    def run(self, job: Job, items: Sequence[str]) -> None:
        """Train the stage (or adopt weights of the user) and publish its weights folder."""
        generator, detail = job.plugin("generators"), Detail.model_validate(job.step.detail)
        (described,) = (stage for stage in generator.stages() if stage.name == detail.stage)
        stage = replace(described, steps=detail.steps, choice=detail.choice)
        inputs = {need: job.input(need).items / "weights" for need in stage.needs}
        follows = job.run.world is not None and job.run.world.rank > 0
        folder = _training_folder(job.store, detail.lineage, detail.steps, detail.seconds, write=not follows)
        if follows:
            run = replace(job.run, train_seconds=detail.seconds)
            generator.train(stage, job.cohort(), inputs, folder, run)
            return
        with lease.held(folder) as held:
            run = replace(held.guarded(job.run), train_seconds=detail.seconds)
            start = time.monotonic()
            if detail.weights is not None:
                published = generator.adopt(stage, detail.weights, job.cohort(), inputs, folder, run)
            else:
                published = generator.train(stage, job.cohort(), inputs, folder, run)
            facts = {"lineage": detail.lineage, "training": folder.name, "steps": stage.steps}
            if detail.weights is None:
                facts["trained"] = {**_trained(folder, stage, time.monotonic() - start), "device": run.device}
            held.check()
            job.out.put_folder("weights", published, facts)


def _trained(folder: Path, stage: Stage, seconds: float) -> dict[str, Any]:
    """Steps and seconds, as counted by `training.fit` over all sessions; else those of this call."""
    from medlord_bench.nn.training import TRAINED

    path = folder / TRAINED
    counted: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return {"steps": stage.steps, "seconds": round(seconds, 1), **counted}


def _training_folder(store: Store, lineage: str, steps: int | None, seconds: float | None, write: bool = True) -> Path:
    """The folder in which a lineage trains. A training that already exceeds this budget is not touched: a shorter one
    has its own folder."""
    shared, own = training_names(lineage, steps, seconds)
    folder = store.object("trainings", shared).path
    if steps is None:
        return folder
    horizon = folder / "horizon.json"
    if horizon.exists():
        earlier = json.loads(horizon.read_text())
        if earlier["steps"] > steps or (earlier["seconds"] or math.inf) > (seconds or math.inf):
            return store.object("trainings", own).path
    if write:
        write_json(horizon, {"steps": steps, "seconds": seconds})
    return folder
