"""Train a stage, or adopt given weights, and publish them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medlord_bench import lease
from medlord_bench.contracts import Choice, Stage
from medlord_bench.steps.job import Job
from medlord_bench.store import Store, training_names
from medlord_bench.training import TRAINED
from medlord_bench.util.files import write_json


def weights(job: Job, items: Sequence[str]) -> None:
    """Train one stage (or adopt given weights) and publish its weights folder."""
    step = job.step
    generator = job.plugin("generators")
    detail = step.detail
    choice = None if detail["choice"] is None else Choice(**detail["choice"])
    (described,) = (stage for stage in generator.stages() if stage.name == detail["stage"])
    stage = replace(described, steps=detail["steps"], choice=choice)
    inputs = {need: job.input(need).items / "weights" for need in stage.needs}
    folder = _training_folder(job.store, detail["lineage"], stage.steps, detail["seconds"])
    run = replace(job.run, train_seconds=detail["seconds"])
    with lease.held(folder):
        start = time.monotonic()
        if detail["weights"] is not None:
            published = generator.adopt(stage, Path(detail["weights"]), job.cohort(), inputs, folder, run)
        else:
            published = generator.train(stage, job.cohort(), inputs, folder, run)
        facts = {"lineage": detail["lineage"], "training": folder.name, "steps": stage.steps}
        if detail["weights"] is None:
            facts["trained"] = {**_trained(folder, stage, time.monotonic() - start), "device": run.device}
        job.out.put_folder("weights", published, facts)


def _trained(folder: Path, stage: Stage, seconds: float) -> dict[str, Any]:
    """Steps done and seconds spent: as `training.fit` counted them, over all sittings; else those of this call."""
    path = folder / TRAINED
    counted: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return {"steps": stage.steps, "seconds": round(seconds, 1), **counted}


def _training_folder(store: Store, lineage: str, steps: int | None, seconds: float | None) -> Path:
    """Where a lineage trains. A training that already went for more than this budget is left alone: a shorter one has its
    own folder."""
    shared, own = training_names(lineage, steps, seconds)
    folder = store.object("trainings", shared).path
    if steps is None:
        return folder
    horizon = folder / "horizon.json"
    if horizon.exists():
        earlier = json.loads(horizon.read_text())
        if earlier["steps"] > steps or (earlier["seconds"] or math.inf) > (seconds or math.inf):
            return store.object("trainings", own).path
    write_json(horizon, {"steps": steps, "seconds": seconds})
    return folder
