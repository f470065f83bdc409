"""Code shared by the steps in which a generator makes volumes: planning, batches, publishing, failures."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medlord_bench.contracts import Failure, FrozenConfig, Purpose, Request, Volume
from medlord_bench.engine.doubts import DOUBT, values_doubt
from medlord_bench.engine.plan import Step
from medlord_bench.engine.planning import Entrant, Planning
from medlord_bench.engine.steps.job import VOLUME, Job, by
from medlord_bench.errors import StepError
from medlord_bench.util import seeds
from medlord_bench.volumes.checks import not_ct, problem_of
from medlord_bench.volumes.io import write_volume

BYTES_PER_VOXEL = 1.5  # gzipped int16: measured 1.3 on the phantom, 1.4 to 1.5 on CT


def plan(
    planning: Planning,
    entrant: Entrant,
    kind: str,
    purpose: Purpose,
    items: Sequence[str],
    identity: Mapping[str, Any] | None = None,
    detail: FrozenConfig | None = None,
) -> Step:
    """Volumes that a contestant makes for a purpose. identity: content of the key besides that of every purpose."""
    needed = entrant.generator.dependencies(purpose)
    inputs = {stage: entrant.weights(stage) for stage in needed.stages}
    inputs |= {"images": "images"} if purpose != "sample" else {}
    whole = {"version": entrant.generator.version, "config": entrant.decides(needed), "purpose": purpose}
    whole |= {"grid": planning.protocol.grid.model_dump(mode="json")} | dict(identity or {})
    seed = seeds.derive(planning.spec.seed, purpose)
    id = f"{kind}:{entrant.name}"
    return planning.add(id, kind, entrant.name, entrant.plugin, whole, items, inputs, detail, seed)


def sample(job: Job, purpose: Purpose, items: Sequence[str], requests: Sequence[Request]) -> None:
    """Draw and publish one volume per request. items: names of the requests' volumes."""
    generator = job.plugin("generators")
    paths = {stage: job.input(stage).items / "weights" for stage in generator.dependencies(purpose).stages}
    publish_volumes(job, items, requests, generator.sample(paths, requests, job.run), purpose)


def whole_batches(job: Job, items: Sequence[str]) -> list[str]:
    """Every item of the batches that contain `items`. The composition of a batch may change the last bit of a sum, so
    it
    must not depend on existing items: samples drawn before a stop are drawn again and not published."""
    size, wanted = job.run.batch, set(items)
    batches = (job.step.items[start : start + size] for start in range(0, len(job.step.items), size))
    return [item for batch in batches if wanted.intersection(batch) for item in batch]


def publish_volumes(
    job: Job,
    items: Sequence[str],
    requests: Sequence[Request | None],
    made: Iterator[Volume | Failure],
    title: str,
) -> None:
    failed: list[str] = []
    doubts: dict[str, str] = {}
    window = job.plan.protocol.grid.hu_window
    with job.run.progress.task(f"{title} {job.step.contestant}", len(items)) as task:
        for item, request in zip(items, requests, strict=True):
            start = time.monotonic()
            volume = next(made, None)
            if volume is None:
                raise StepError(f"{job.step.id}: the generator returned fewer volumes than requested ({item})")
            if job.out.has(item):  # published before a stop, drawn again with its batch
                task.advance()
                continue
            facts: dict[str, Any] = {"seconds": round(time.monotonic() - start, 3), "device": job.run.device}
            if request is not None:
                facts["seed"] = request.seed
            problem = volume.reason if isinstance(volume, Failure) else problem_of(volume, job.plan.protocol.grid.shape)
            if problem is None and isinstance(volume, Volume):
                if doubt := not_ct(volume, window):
                    doubts[item] = facts[DOUBT] = doubt
                job.out.put(item, {VOLUME: by(write_volume, volume)}, facts)
            else:
                failed.append(f"{item}: {problem}")
                job.out.put_failure(item, str(problem), facts)
            task.advance()
            job.check_stop(item)
    if failed:
        job.run.log.warning("%s: %d of %d failed, first: %s", job.step.id, len(failed), len(items), failed[0])
    if said := values_doubt(doubts, len(items)):
        job.run.log.warning("%s: %s", job.step.id, said)
