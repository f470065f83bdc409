"""Sample and reconstruct, and publish what came out, failures included."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from medlord_bench import seeds
from medlord_bench.contracts import Failure, Request, Volume
from medlord_bench.errors import StepError
from medlord_bench.steps.job import VOLUME, Job, by
from medlord_bench.volumes import write_volume


def samples(job: Job, items: Sequence[str]) -> None:
    """Unconditional samples, by index."""
    grid = job.plan.protocol.grid
    items, requests = _whole_batches(job, items), []
    for item in items:
        index = int(item.removeprefix("sample-"))
        requests.append(Request(index, seeds.derive(job.step.seed, "sample", index), grid))
    _sample(job, items, requests)


def conditional(job: Job, items: Sequence[str]) -> None:
    """One sample per mask of the test split."""
    cohort, protocol = job.cohort(), job.plan.protocol
    items, requests = _whole_batches(job, items), []
    for item in items:
        seed = seeds.derive(job.step.seed, "mask", item)
        case = str(cohort.images.sidecar(item).facts["case"])
        requests.append(Request(job.step.items.index(item), seed, protocol.grid, cohort.label_map(item), case))
    _sample(job, items, requests)


def _whole_batches(job: Job, items: Sequence[str]) -> list[str]:
    """Every item of the batches that `items` are in. Who shares a batch may change the last bit of a sum, so it must
    not depend on what is there already: samples that were made before a stop are drawn again and not published."""
    size, wanted = job.run.batch, set(items)
    batches = (job.step.items[start : start + size] for start in range(0, len(job.step.items), size))
    return [item for batch in batches if wanted.intersection(batch) for item in batch]


def _sample(job: Job, items: Sequence[str], requests: Sequence[Request]) -> None:
    generator = job.plugin("generators")
    purpose = "sample-conditional" if job.step.kind == "conditional" else "sample"
    paths = {stage: job.input(stage).items / "weights" for stage in generator.reads(purpose).stages}
    _publish_volumes(job, items, requests, generator.sample(paths, requests, job.run), purpose)


def reconstructions(job: Job, items: Sequence[str]) -> None:
    """The test images through the autoencoder."""
    generator, cohort = job.plugin("generators"), job.cohort()
    paths = {stage: job.input(stage).items / "weights" for stage in generator.reads("reconstruct").stages}
    named = ((str(cohort.images.sidecar(item).facts["case"]), cohort.volume(item)) for item in items)
    made = generator.reconstruct(paths, named, job.run)
    _publish_volumes(job, items, [None] * len(items), made, "reconstruct")


def _publish_volumes(
    job: Job,
    items: Sequence[str],
    requests: Sequence[Request | None],
    made: Iterator[Volume | Failure],
    title: str,
) -> None:
    failed: list[str] = []
    with job.run.progress.task(f"{title} {job.step.label}", len(items)) as task:
        for item, request in zip(items, requests, strict=True):
            start = time.monotonic()
            volume = next(made, None)
            if volume is None:
                raise StepError(f"{job.step.id}: the generator gave fewer volumes than it was asked for ({item})")
            if job.out.has(item):  # made before a stop, and drawn again with its batch
                task.advance()
                continue
            facts: dict[str, Any] = {"seconds": round(time.monotonic() - start, 3), "device": job.run.device}
            if request is not None:
                facts["seed"] = request.seed
            problem = volume.reason if isinstance(volume, Failure) else problem_of(volume, job.plan.protocol.grid.shape)
            if problem is None and isinstance(volume, Volume):
                job.out.put(item, {VOLUME: by(write_volume, volume)}, facts)
            else:
                failed.append(f"{item}: {problem}")
                job.out.put_failure(item, str(problem), facts)
            task.advance()
            job.check_stop(item)
    if failed:
        job.run.log.warning("%s: %d of %d failed, the first is %s", job.step.id, len(failed), len(items), failed[0])


def problem_of(volume: Volume, shape: tuple[int, int, int]) -> str | None:
    """Why a generated volume counts as failed, or None."""
    if volume.shape != shape:
        return f"shape {volume.shape}, asked for {shape}"
    low, high = int(volume.hu.min()), int(volume.hu.max())
    if low == high:
        return f"constant ({low} HU)"
    if high - low <= 2:
        return f"values lie in {low}..{high}: scaled to [0, 1] or [-1, 1], not HU"
    return None
