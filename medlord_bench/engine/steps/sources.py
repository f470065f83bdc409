"""The volumes that measuring steps read: their steps, how they are opened, and their references."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from medlord_bench.contracts import Item, Source, Volume
from medlord_bench.contracts.arms import Prediction
from medlord_bench.engine.plan import Step, generated_name
from medlord_bench.engine.prepared import StoredCohort
from medlord_bench.engine.steps.job import STATE, VOLUME, Job, by
from medlord_bench.engine.store import StoredObject
from medlord_bench.errors import StepError
from medlord_bench.volumes.arrays import save_state


@dataclass(frozen=True)
class Volumes:
    """The volumes of a step: prepared images, or a contestant's volumes."""

    job: Job
    step: Step

    @property
    def are_real(self) -> bool:
        return self.step.kind == "images"

    @cached_property
    def object(self) -> StoredObject:
        return self.job.object(self.step)

    @cached_property
    def cohort(self) -> StoredCohort:
        return self.job.cohort()

    @cached_property
    def external(self) -> StoredCohort:
        """The other data set that predictions are also of."""
        return self.job.external_cohort(self.step.inputs["external"])

    def path(self, item: str) -> Path:
        return self.cohort.hu_path(item) if self.are_real else self.object.file(item, VOLUME)

    def open(self, item: str) -> Volume:
        from medlord_bench.volumes.io import read_volume

        return self.cohort.volume(item) if self.are_real else read_volume(self.path(item))

    def name(self, item: str) -> str:
        """Its name for a segmenter, as in `Segmenter.fingerprint`."""
        return self.cohort.case_of(item) if self.are_real else generated_name(self.step, item)


def volumes(job: Job) -> Volumes:
    """The volumes that the job's step reads."""
    return Volumes(job, job.plan.step(job.step.inputs["volumes"]))


def usable(job: Job, items: Sequence[str], made: StoredObject) -> list[str]:
    """The items that exist; those that failed there are published as failed here too."""
    good = []
    for item in items:
        failed = made.sidecar(item).failed
        if failed is None:
            good.append(item)
        else:
            job.out.put_failure(item, failed, {})
    return good


def publish_states(job: Job, items: Sequence[str], made: Iterator[Mapping[str, Any]], title: str) -> None:
    """Publish named arrays, one state per item."""
    with job.run.progress.task(title, len(items)) as task:
        for place, item in enumerate(items):
            state = next(made, None)
            if not isinstance(state, Mapping):
                found = f"{place} states" if state is None else f"a {type(state).__name__} for {item}"
                raise StepError(
                    f"{title}: gave {found}, expected a state (named arrays) for each of {len(items)} items"
                )
            job.out.put(item, {STATE: by(save_state, state)}, {})
            task.advance()
            job.check_stop(item)
    if next(made, None) is not None:
        raise StepError(f"{title}: gave more than {len(items)} states, expected one for each item")


@dataclass(frozen=True)
class Derived:
    """The outputs of a step, one file per volume: label maps (`VOLUME`), or features or states (`STATE`)."""

    object: StoredObject
    suffix: str

    @property
    def are_labels(self) -> bool:
        return self.suffix == VOLUME


def items_of(source: Source, read: Volumes, derived: Derived | None, items: Iterable[str]) -> Iterator[Item]:
    """The items of a source as passed to a metric, each with its reference.

    derived: what the metric reads in place of the volumes; None for the volumes themselves.
    """
    cohort, plan = read.cohort, read.job.plan
    for item in items:
        failed, names, path = read.object.sidecar(item).failed, {}, read.path(item)
        volume = path if derived is not None and derived.are_labels else None
        if derived is not None:
            path = derived.object.file(item, derived.suffix)
            if failed is None:
                failed, names = derived.object.sidecar(item).failed, _names(derived.object, item)
        elif source.is_predicted and failed is None:
            names = _names(read.object, item)
        case = item
        if source.is_predicted:
            one = Prediction.parse(item)
            case, cohort = one.case, read.cohort if one.of != "external" else read.external
        compared = source.compared_with(labels=derived is not None and derived.are_labels)
        mask = cohort.mask_path(case) if compared == "mask" else None
        image = cohort.hu_path(case) if compared == "image" else None
        yield Item(
            id=item,
            source=source,
            path=None if failed else path,
            patient=plan.patients.get(case),
            reference=mask or image,
            failed=failed,
            volume=None if failed else volume,
            spacing=cohort.spacing(case) if source.has_cases else plan.protocol.grid.spacing,
            names=names,
            reference_names={} if mask is None else cohort.label_names,
        )


def _names(made: StoredObject, item: str) -> dict[int, str]:
    """Label value to region name of a published label map."""
    return {int(value): name for value, name in made.sidecar(item).facts.get("names", {}).items()}
