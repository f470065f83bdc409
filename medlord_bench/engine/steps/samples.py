"""`samples`: unconditional samples, by index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from medlord_bench.contracts import Request
from medlord_bench.engine.plan import Step, sample_id
from medlord_bench.engine.planning import Entrant, Planning
from medlord_bench.engine.steps import generated
from medlord_bench.engine.steps.job import Job
from medlord_bench.engine.steps.kind import Kind
from medlord_bench.util import seeds


def plan(planning: Planning, entrant: Entrant) -> Step:
    """The requested number of samples, or the number that the generator has."""
    available = entrant.generator.available(planning.protocol)
    count = planning.spec.samples if available is None else min(planning.spec.samples, available)
    return generated.plan(planning, entrant, "samples", "sample", [sample_id(index) for index in range(count)])


class Samples(Kind):
    name: ClassVar[str] = "samples"
    bytes_per_voxel: ClassVar[float | None] = generated.BYTES_PER_VOXEL
    less_memory: ClassVar[str] = "--batch 1, or smaller tiles"

    def during(self, step: Step) -> str | None:
        return "sample"

    def run(self, job: Job, items: Sequence[str]) -> None:
        grid = job.plan.protocol.grid
        items, requests = generated.whole_batches(job, items), []
        for item in items:
            index = int(item.removeprefix("sample-"))
            requests.append(Request(index, seeds.derive(job.step.seed, "sample", index), grid))
        generated.sample(job, "sample", items, requests)
