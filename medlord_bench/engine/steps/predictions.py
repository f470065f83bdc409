"""`predictions`: the label maps that trained arms predict for the test cases, and for conditional samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from medlord_bench.contracts import LabelMap, Volume, specs
from medlord_bench.contracts.arms import Prediction
from medlord_bench.contracts.specs import PluginSpec
from medlord_bench.engine.plan import Step
from medlord_bench.engine.planning import Planning
from medlord_bench.engine.steps import twins
from medlord_bench.engine.steps.job import VOLUME, Job, by
from medlord_bench.engine.steps.kind import Kind
from medlord_bench.engine.steps.labelled import sample_on_mask
from medlord_bench.engine.store import StoredObject


def plan(
    planning: Planning,
    contestant: str,
    spec: PluginSpec,
    metric: Any,
    items: Sequence[Prediction],
    steps: Mapping[str, Step],
) -> Step:
    """Predictions by a contestant's arms. steps: "arms" and "real-arms" for the models, "conditional" for the samples."""
    inputs = {"images": "images"} | {role: step.id for role, step in steps.items()}
    id = f"{Predictions.name}:{contestant}:{spec.name}"
    identity = {"version": metric.version, "training": dict(metric.training())}
    return planning.add(id, Predictions.name, contestant, spec, identity, [one.item for one in items], inputs)


class Predictions(Kind):
    name: ClassVar[str] = "predictions"
    less_memory: ClassVar[str] = "a smaller grid"

    def run(self, job: Job, items: Sequence[str]) -> None:
        twins.check(job)
        metric = job.plugin("metrics")
        with job.run.progress.task(f"predict by {job.step.contestant}", len(items)) as task:
            for model, group in groupby(map(Prediction.parse, items), key=lambda one: one.model):
                of_model = list(group)
                place, failed = _model(job, model)
                if place is None:
                    for one in of_model:
                        job.out.put_failure(one.item, failed, {})
                    continue
                wanted = _with_volume(job, of_model)
                name, settings = metric.segmenter(place)
                segmenter = specs.make("segmenters", specs.plugin_spec("segmenters", name, settings))
                made = segmenter.segment(_named(job, wanted), job.run)
                for one, label_map in zip(wanted, made, strict=True):
                    _publish(job, one, label_map)
                    task.advance()
                    job.check_stop(one.item)


def _publish(job: Job, one: Prediction, label_map: Any) -> None:
    from medlord_bench.volumes.io import write_labels

    if isinstance(label_map, LabelMap):
        names = {str(value): name for value, name in label_map.names.items()}
        job.out.put(one.item, {VOLUME: by(write_labels, label_map)}, {"names": names})
    else:
        job.run.log.warning("%s: %s: no prediction: %s", job.step.id, one.item, label_map.reason)
        job.out.put_failure(one.item, label_map.reason, {})


def _model(job: Job, model: str) -> tuple[Path | None, str]:
    """The folder of a trained model; None and the reason if it could not be trained."""
    roles = [role for role in ("arms", "real-arms") if role in job.step.inputs]
    made: StoredObject = next(job.input(role) for role in roles if model in job.plan.step(job.step.inputs[role]).items)
    failed = made.sidecar(model).failed
    return (made.items / model, "") if failed is None else (None, f"no model: {failed}")


def _with_volume(job: Job, items: Sequence[Prediction]) -> list[Prediction]:
    """Those whose volume exists; the others are published as failed."""
    found = []
    for one in items:
        failed = job.input("conditional").sidecar(one.case).failed if one.of == "samples" else None
        if failed is None:
            found.append(one)
        else:
            job.out.put_failure(one.item, f"the sample failed: {failed}", {})
    return found


def _named(job: Job, items: Sequence[Prediction]) -> Iterator[tuple[str, Volume]]:
    cohort = job.cohort()
    for one in items:
        if one.of == "samples":
            yield one.item, sample_on_mask(cohort, job.input("conditional"), one.case, one.case)[0]
        elif one.of == "external":
            yield one.item, job.external_cohort(job.step.inputs["external"]).volume(one.case)
        else:
            yield one.item, cohort.volume(one.case)
