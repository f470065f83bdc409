"""`reconstructions`: the test images through a generator's autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from medlord_bench.engine.plan import Step
from medlord_bench.engine.planning import Entrant, Planning
from medlord_bench.engine.steps import generated
from medlord_bench.engine.steps.job import Job
from medlord_bench.engine.steps.kind import Kind


def plan(planning: Planning, entrant: Entrant) -> Step:
    """Every test case."""
    return generated.plan(planning, entrant, "reconstructions", "reconstruct", planning.splits["test"])


class Reconstructions(Kind):
    name: ClassVar[str] = "reconstructions"
    bytes_per_voxel: ClassVar[float | None] = generated.BYTES_PER_VOXEL
    less_memory: ClassVar[str] = "--batch 1, or smaller tiles"

    def during(self, step: Step) -> str | None:
        return "reconstruct"

    def run(self, job: Job, items: Sequence[str]) -> None:
        generator, cohort = job.plugin("generators"), job.cohort()
        paths = {stage: job.input(stage).items / "weights" for stage in generator.dependencies("reconstruct").stages}
        named = ((cohort.case_of(item), cohort.volume(item)) for item in items)
        made = generator.reconstruct(paths, named, job.run)
        generated.publish_volumes(job, items, [None] * len(items), made, "reconstruct")
