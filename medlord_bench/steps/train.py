"""Train a stage, or adopt given weights, and publish them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from medlord_bench import lease
from medlord_bench.contracts import Choice, Stage
from medlord_bench.steps.job import Job
from medlord_bench.store import Store, training_names, write_json


def weights(job: Job, items: Sequence[str]) -> None:
    """Train one stage (or adopt given weights) and publish its weights folder."""
    step = job.step
    generator = job.plugin("generators")
    detail = step.detail
    choice = None if detail["choice"] is None else Choice(**detail["choice"])
    stage = Stage(detail["stage"], detail["stage_config"], detail["steps"], tuple(detail["needs"]), choice=choice)
    inputs = {need: job.input(need).items / "weights" for need in stage.needs}
    folder = _training_folder(job.store, detail["lineage"], stage.steps)
    with lease.held(folder):
        if detail["weights"] is not None:
            published = generator.adopt(stage, Path(detail["weights"]), job.cohort(), inputs, folder, job.run)
        else:
            published = generator.train(stage, job.cohort(), inputs, folder, job.run)
        facts = {"lineage": detail["lineage"], "training": folder.name, "steps": stage.steps}
        job.out.put_folder("weights", published, facts)


def _training_folder(store: Store, lineage: str, steps: int | None) -> Path:
    """Where a lineage trains. A training that is already past `steps` is left alone: a shorter one has its own folder."""
    shared, own = training_names(lineage, steps)
    folder = store.object("trainings", shared).path
    horizon = folder / "horizon.json"
    reached = json.loads(horizon.read_text())["steps"] if horizon.exists() else 0
    if steps is None:
        return folder
    if reached > steps:
        return store.object("trainings", own).path
    write_json(horizon, {"steps": steps})
    return folder
