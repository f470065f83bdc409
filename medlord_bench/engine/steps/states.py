"""`states`: a metric's own case-by-case part, of volumes or of a segmenter's label maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from medlord_bench.contracts import FrozenConfig, Source, specs
from medlord_bench.contracts.specs import PluginSpec
from medlord_bench.engine.plan import Step
from medlord_bench.engine.planning import REAL, Planning
from medlord_bench.engine.steps.job import VOLUME, Job
from medlord_bench.engine.steps.kind import Kind
from medlord_bench.engine.steps.sources import Derived, items_of, publish_states, usable, volumes


class Detail(FrozenConfig):
    source: Source


def plan(
    planning: Planning,
    spec: PluginSpec,
    metric: Any,
    source: Source,
    of: Step,
    items: Iterable[str],
    labels: Step | None,
) -> Step:
    """States of the volumes of a step. labels: the label maps that are read instead, if any."""
    inputs = {"volumes": of.id, "images": "images"} | ({} if labels is None else {"labels": labels.id})
    identity = {"version": metric.version, "config": specs.without_places(spec.config), "source": source}
    place = source if of.contestant == REAL else of.id  # one step per split: a metric may read several
    id = f"states:{place}:{spec.name}"
    return planning.add(id, "states", of.contestant, spec, identity, list(items), inputs, Detail(source=source))


class States(Kind):
    name: ClassVar[str] = "states"
    linked: ClassVar[bool] = False
    less_memory: ClassVar[str] = "--batch 1"

    def run(self, job: Job, items: Sequence[str]) -> None:
        source, read = Detail.model_validate(job.step.detail).source, volumes(job)
        labels = job.input("labels") if "labels" in job.step.inputs else None
        good = usable(job, items, labels or read.object)
        derived = None if labels is None else Derived(labels, VOLUME)
        made = job.plugin("metrics").extract(items_of(source, read, derived, good), job.run)
        publish_states(job, good, made, f"{job.step.plugin.plugin} of {read.step.id}")
