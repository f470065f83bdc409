"""`training-samples`: samples for the masks of the training split, to train a segmenter on (`contracts.arms`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from medlord_bench.contracts import FrozenConfig, Request
from medlord_bench.contracts.arms import Synthetic
from medlord_bench.engine.plan import Step
from medlord_bench.engine.planning import Entrant, Planning
from medlord_bench.engine.steps import generated
from medlord_bench.engine.steps.job import Job
from medlord_bench.engine.steps.kind import Kind
from medlord_bench.util import seeds


class Detail(FrozenConfig):
    """masks: item -> the training case whose mask it follows."""

    masks: dict[str, str]


def plan(planning: Planning, entrant: Entrant, wanted: Sequence[Synthetic]) -> Step:
    """The wanted samples, each once, in order of the cases: a later draw is after all earlier ones."""
    order = {case: place for place, case in enumerate(planning.splits["train"])}
    masks = {one.item: one.case for one in sorted(wanted, key=lambda one: (one.draw, order[one.case]))}
    known = planning.steps.get(f"{TrainingSamples.name}:{entrant.name}")
    if known is not None:  # another variant of the metric wants others
        masks = Detail.model_validate(known.detail).masks | masks
    identity = {"regions": list(planning.protocol.condition_regions), "masks": "train"}
    return generated.plan(
        planning, entrant, TrainingSamples.name, "sample-conditional", list(masks), identity, Detail(masks=masks)
    )


def one_each(planning: Planning, entrant: Entrant) -> Step | None:
    """One sample for each training mask; None for a contestant without conditional samples."""
    if f"conditional:{entrant.name}" not in planning.steps:
        return None
    return plan(planning, entrant, [Synthetic(case=case, draw=1) for case in planning.splits["train"]])


class TrainingSamples(Kind):
    name: ClassVar[str] = "training-samples"
    bytes_per_voxel: ClassVar[float | None] = generated.BYTES_PER_VOXEL
    less_memory: ClassVar[str] = "--batch 1, or smaller tiles"

    def during(self, step: Step) -> str | None:
        return "sample-conditional"

    def run(self, job: Job, items: Sequence[str]) -> None:
        cohort, grid = job.cohort(), job.plan.protocol.grid
        masks = Detail.model_validate(job.step.detail).masks
        items, requests = generated.whole_batches(job, items), []
        for item in items:
            seed, index = seeds.derive(job.step.seed, "training mask", item), job.step.items.index(item)
            mask = masks[item]
            requests.append(Request(index, seed, grid, cohort.label_map(mask), cohort.case_of(mask)))
        generated.sample(job, "sample-conditional", items, requests)
