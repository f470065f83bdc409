"""Labelled cases of a run, as a metric that trains on them sees them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from medlord_bench.contracts import LabelMap, Volume
from medlord_bench.contracts.arms import LabelledCase, Synthetic
from medlord_bench.engine.prepared import StoredCohort
from medlord_bench.engine.steps.job import VOLUME, Job
from medlord_bench.engine.store import StoredObject


def real_cases(job: Job, items: Iterable[str]) -> list[LabelledCase]:
    """Real cases with their own masks."""
    cohort = job.cohort()
    return [LabelledCase(item, job.plan.patients[item], partial(_real, cohort, item)) for item in items]


def generated_cases(
    job: Job, samples: StoredObject, wanted: Iterable[Synthetic]
) -> tuple[list[LabelledCase], dict[str, str]]:
    """Samples with the masks that they were asked to follow; and the reason of each that failed, by item."""
    cohort, found, failed = job.cohort(), [], {}
    for one in wanted:
        reason = samples.sidecar(one.item).failed
        if reason is not None:
            failed[one.item] = reason
            continue
        opened = partial(sample_on_mask, cohort, samples, one.item, one.case)
        found.append(LabelledCase(f"synthetic-{one.item}", job.plan.patients[one.case], opened))
    return found, failed


def sample_on_mask(cohort: StoredCohort, samples: StoredObject, item: str, case: str) -> tuple[Volume, LabelMap]:
    """A sample and the mask of a case, both with the case's affine: samples have no position of their own."""
    from medlord_bench.volumes.io import read_volume

    mask = cohort.label_map(case)
    return Volume(read_volume(samples.file(item, VOLUME)).hu, mask.affine), mask


def _real(cohort: StoredCohort, item: str) -> tuple[Volume, LabelMap]:
    return cohort.volume(item), cohort.label_map(item)
