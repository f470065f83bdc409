"""`conditional`: one sample for each mask of the test split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from medlord_bench.contracts import Request
from medlord_bench.engine.plan import Step
from medlord_bench.engine.planning import Entrant, Planning
from medlord_bench.engine.steps import generated
from medlord_bench.engine.steps.job import Job
from medlord_bench.engine.steps.kind import Kind
from medlord_bench.util import seeds


def plan(planning: Planning, entrant: Entrant) -> Step:
    """A sample for each test case's mask."""
    regions = {"regions": list(planning.protocol.condition_regions)}
    return generated.plan(planning, entrant, "conditional", "sample-conditional", planning.splits["test"], regions)


class Conditional(Kind):
    name: ClassVar[str] = "conditional"
    bytes_per_voxel: ClassVar[float | None] = generated.BYTES_PER_VOXEL
    less_memory: ClassVar[str] = "--batch 1, or smaller tiles"

    def during(self, step: Step) -> str | None:
        return "sample-conditional"

    def run(self, job: Job, items: Sequence[str]) -> None:
        cohort, grid = job.cohort(), job.plan.protocol.grid
        items, requests = generated.whole_batches(job, items), []
        for item in items:
            seed, index = seeds.derive(job.step.seed, "mask", item), job.step.items.index(item)
            requests.append(Request(index, seed, grid, cohort.label_map(item), cohort.case_of(item)))
        generated.sample(job, "sample-conditional", items, requests)
