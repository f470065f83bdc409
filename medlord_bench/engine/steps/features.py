"""`features`: an extractor's vectors, one file per volume."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from medlord_bench.contracts import specs
from medlord_bench.contracts.specs import PluginSpec
from medlord_bench.engine.plan import Step
from medlord_bench.engine.planning import Planning
from medlord_bench.engine.steps import voxel_size
from medlord_bench.engine.steps.job import Job
from medlord_bench.engine.steps.kind import Kind
from medlord_bench.engine.steps.sources import publish_states, usable, volumes
from medlord_bench.util.hashing import digest


def plan(planning: Planning, spec: PluginSpec, of: Step, items: Iterable[str]) -> Step:
    """Features of the volumes of a step; one step for all metrics that need them."""
    extractor = specs.make("extractors", spec)
    identity = {"version": extractor.version, "config": spec.config, "preprocessing": dict(extractor.preprocessing)}
    if getattr(extractor, "reads_spacing", False):
        identity |= voxel_size.identity(planning)
    id = f"features:{of.id}:{spec.plugin}-{digest(identity)[:6]}"  # two metrics may need two configurations
    return planning.add(id, "features", of.contestant, spec, identity, list(items), {"volumes": of.id})


class Features(Kind):
    name: ClassVar[str] = "features"
    less_memory: ClassVar[str] = "--batch 1"

    def run(self, job: Job, items: Sequence[str]) -> None:
        source = volumes(job)
        good = usable(job, items, source.object)
        extractor = job.plugin("extractors")
        size = voxel_size.of_all(job) if getattr(extractor, "reads_spacing", False) else None
        made = extractor.features((voxel_size.at(source.open(item), size) for item in good), job.run)
        publish_states(job, good, made, f"features of {source.step.id}")
