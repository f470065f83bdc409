"""What each kind of step does: read its inputs from the store, call the plugin, publish item by item.

A handler gets the items of its shard that are still missing. It publishes each as soon as it is made, so that a stop
at any moment loses at most the item in hand.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from medlord_bench import config, lease, seeds
from medlord_bench.cohort import HU, LABELS, StoredCohort
from medlord_bench.config import PluginSpec
from medlord_bench.contracts import (
    Case,
    Failure,
    Item,
    LabelMap,
    MetricInputs,
    Need,
    Request,
    Run,
    Stage,
    Volume,
)
from medlord_bench.errors import StepError, Stopped
from medlord_bench.plan import Plan, Step
from medlord_bench.results import CaseRow, Score
from medlord_bench.states import save_state
from medlord_bench.store import Store, StoredObject, Write, training_names, write_json
from medlord_bench.volumes import fit, fit_labels, missing_regions, write_labels, write_volume

T = TypeVar("T")
Loaded = tuple[str, Volume, LabelMap | None]
VOLUME, STATE, SCORES = ".nii.gz", ".safetensors", ".scores.json"


@dataclass(frozen=True)
class Job:
    """One (step, shard) with everything a handler needs."""

    plan: Plan
    step: Step
    store: Store
    run: Run

    @property
    def out(self) -> StoredObject:
        return self.store.object(self.step.kind, self.step.key)

    def input(self, role: str) -> StoredObject:
        source = self.plan.step(self.step.inputs[role])
        return self.store.object(source.kind, source.key)

    def cohort(self) -> StoredCohort:
        images = self.plan.step("images")
        return StoredCohort(self.store.object("images", images.key), self.plan.protocol, self.plan.splits)

    def plugin(self, kind: str) -> Any:
        return config.make(kind, self.step.plugin)

    def check_stop(self, done: str) -> None:
        if self.run.stop():
            raise Stopped(f"{self.step.id}: stopped after {done}, saved")


Handler = Callable[[Job, Sequence[str]], None]


def images(job: Job, items: Sequence[str]) -> None:
    """Bring every case onto the protocol's grid: HU as `.npy` (memory-mapped by training), labels beside it."""
    from medlord_bench.plan import item_id

    dataset = job.plugin("datasets")
    protocol = job.plan.protocol
    cases = {item_id(case): case for split in job.plan.splits for case in dataset.cases(split)}
    regions = dict.fromkeys((*protocol.rvr_regions, *protocol.condition_regions, *protocol.adherence_regions))
    loaded: Iterator[Loaded] = ((item, *dataset.load(cases[item])) for item in items)
    if job.step.detail["masks"] is not None:
        loaded = _segmented(job, cases, loaded)
    with job.run.progress.task(f"prepare {job.plan.dataset.plugin}", len(items)) as task:
        for item, volume, labels in loaded:
            fitted = fit(volume, protocol.grid, protocol.fit).volume
            facts: dict[str, Any] = {"case": cases[item].id, "patient": cases[item].patient, "names": {}}
            facts |= {"affine": fitted.affine.tolist(), "source_shape": volume.shape, "source_spacing": volume.spacing}
            writers = {HU: _npy(fitted.hu)}
            if labels is not None:
                placed = fit_labels(labels, protocol.grid, protocol.fit)
                facts["names"] = {str(value): name for value, name in labels.names.items()}
                facts["missing_regions"], facts["cropped_regions"] = missing_regions(placed, regions)
                if facts["missing_regions"]:
                    job.run.log.warning("case %s: no voxels of %s", item, ", ".join(facts["missing_regions"]))
                writers[LABELS] = _npy(placed.labels)
            job.out.put(item, writers, facts)
            task.advance()
            job.check_stop(item)


def _segmented(job: Job, cases: Mapping[str, Case], loaded: Iterator[Loaded]) -> Iterator[Loaded]:
    """Masks by a segmenter, on each image's own grid, in place of the data set's."""
    segmenter = config.make("segmenters", PluginSpec.model_validate(job.step.detail["masks"]))
    waiting: deque[tuple[str, Volume]] = deque()

    def volumes() -> Iterator[tuple[str, Volume]]:
        for item, volume, _ in loaded:
            waiting.append((item, volume))
            yield cases[item].id, volume

    for labels in segmenter.segment(volumes(), job.run):
        item, volume = waiting.popleft()
        if isinstance(labels, Failure):
            raise StepError(f"case {item}: no mask could be made ({labels.reason}); exclude it or give its mask")
        yield item, volume, labels


def _npy(array: Any) -> Write:
    def write(path: Path) -> None:
        with open(path, "wb") as file:
            np.save(file, array, allow_pickle=False)

    return write


def _by(write: Callable[[Path, T], None], value: T) -> Write:
    """`write(path, value)` as a writer of `StoredObject.put`."""
    return lambda path: write(path, value)


def weights(job: Job, items: Sequence[str]) -> None:
    """Train one stage (or adopt given weights) and publish its weights folder."""
    step = job.step
    generator = job.plugin("generators")
    detail = step.detail
    stage = Stage(detail["stage"], detail["stage_config"], detail["steps"], tuple(detail["needs"]))
    inputs = {need: job.input(need).items / "weights" for need in stage.needs}
    folder = _training_folder(job.store, detail["lineage"], stage.steps)
    with lease.held(folder):
        if detail["weights"] is not None:
            published = generator.adopt(stage, Path(detail["weights"]), job.cohort(), inputs, folder, job.run)
        else:
            published = generator.train(stage, job.cohort(), inputs, folder, job.run)
        facts = {"lineage": detail["lineage"], "training": folder.name, "steps": stage.steps}
        job.out.put_folder("weights", published, facts)


def _training_folder(store: Store, lineage: str, steps: int | None) -> Path:
    """Where a lineage trains. A training that is already past `steps` is left alone: a shorter one has its own folder."""
    shared, own = training_names(lineage, steps)
    folder = store.object("trainings", shared).path
    horizon = folder / "horizon.json"
    reached = json.loads(horizon.read_text())["steps"] if horizon.exists() else 0
    if steps is None:
        return folder
    if reached > steps:
        return store.object("trainings", own).path
    write_json(horizon, {"steps": steps})
    return folder


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
        requests.append(Request(job.step.items.index(item), seed, protocol.grid, cohort.label_map(item)))
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
    made = generator.reconstruct(paths, (cohort.volume(item) for item in items), job.run)
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
            problem = volume.reason if isinstance(volume, Failure) else _problem(volume, job.plan.protocol.grid.shape)
            if problem is None and isinstance(volume, Volume):
                job.out.put(item, {VOLUME: _by(write_volume, volume)}, facts)
            else:
                failed.append(f"{item}: {problem}")
                job.out.put_failure(item, str(problem), facts)
            task.advance()
            job.check_stop(item)
    if failed:
        job.run.log.warning("%s: %d of %d failed, the first is %s", job.step.id, len(failed), len(items), failed[0])


def _problem(volume: Volume, shape: tuple[int, int, int]) -> str | None:
    """Why a generated volume counts as failed, or None."""
    if volume.shape != shape:
        return f"shape {volume.shape}, asked for {shape}"
    low, high = int(volume.hu.min()), int(volume.hu.max())
    if low == high:
        return f"constant ({low} HU)"
    if high - low <= 2:
        return f"values lie in {low}..{high}: scaled to [0, 1] or [-1, 1], not HU"
    return None


# ------------------------------------------------------------------------------------------------------ measuring
def _source_kind(job: Job) -> str:
    return job.plan.step(job.step.inputs["volumes"]).kind


def _volume_file(kind: str, source: StoredObject, item: str) -> Path:
    return source.file(item, HU if kind == "images" else VOLUME)


def _open(kind: str, source: StoredObject, item: str) -> Volume:
    from medlord_bench.states import read_hu
    from medlord_bench.volumes import read_volume

    if kind != "images":
        return read_volume(_volume_file(kind, source, item))
    affine = np.array(source.sidecar(item).facts["affine"], dtype=np.float64)
    return Volume(np.asarray(read_hu(_volume_file(kind, source, item))), affine)


def _split_failed(job: Job, items: Sequence[str]) -> list[str]:
    """The items that have a volume; those that failed are published as failed here too."""
    source = job.input("volumes")
    good = []
    for item in items:
        failed = source.sidecar(item).failed
        if failed is None:
            good.append(item)
        else:
            job.out.put_failure(item, failed, {})
    return good


def features(job: Job, items: Sequence[str]) -> None:
    """Feature vectors of volumes, one state per volume."""
    good = _split_failed(job, items)
    kind, source = _source_kind(job), job.input("volumes")
    extractor = job.plugin("extractors")
    made = extractor.features((_open(kind, source, item) for item in good), job.run)
    _publish_states(job, good, made, f"features of {job.step.inputs['volumes']}")


def states(job: Job, items: Sequence[str]) -> None:
    """A metric's own case-by-case states."""
    good = _split_failed(job, items)
    source = job.step.detail["source"]
    made = job.plugin("metrics").extract(_items(job, source, job.input("volumes"), None, good), job.run)
    _publish_states(job, good, made, f"{job.step.plugin.plugin} of {job.step.inputs['volumes']}")


def _publish_states(job: Job, items: Sequence[str], made: Iterator[Mapping[str, Any]], title: str) -> None:
    with job.run.progress.task(title, len(items)) as task:
        for item, state in zip(items, made, strict=True):
            job.out.put(item, {STATE: _by(save_state, state)}, {})
            task.advance()
            job.check_stop(item)


def labels(job: Job, items: Sequence[str]) -> None:
    """Label maps of volumes by a segmenter."""
    good = _split_failed(job, items)
    kind, source = _source_kind(job), job.input("volumes")
    made = job.plugin("segmenters").segment(((item, _open(kind, source, item)) for item in good), job.run)
    with job.run.progress.task(f"labels of {job.step.inputs['volumes']}", len(good)) as task:
        for item, label_map in zip(good, made, strict=True):
            if isinstance(label_map, LabelMap):
                facts = {"names": {str(value): name for value, name in label_map.names.items()}}
                job.out.put(item, {VOLUME: _by(write_labels, label_map)}, facts)
            else:
                job.out.put_failure(item, label_map.reason, {})
            task.advance()
            job.check_stop(item)


def scores(job: Job, items: Sequence[str]) -> None:
    """Reduce a metric over everything it needs; publish its scores and case rows."""
    metric = job.plugin("metrics")
    found: dict[Need, list[Item]] = {}
    for need in job.step.detail["needs"]:
        if need["items"] is None:
            continue
        made = job.plan.step(job.step.inputs[f"{need['source']}|{need['by']}"])
        made_object = job.store.object(made.kind, made.key)
        volumes = job.plan.step(job.step.inputs[f"{need['source']}|volumes"])
        source = job.store.object(volumes.kind, volumes.key)
        suffix = None if made.id == volumes.id else {"labels": VOLUME}.get(made.kind, STATE)
        found[Need(need["source"], need["by"])] = list(
            _items(job, need["source"], source, None if suffix is None else (made_object, suffix), need["items"])
        )
    inputs = MetricInputs(job.step.label, job.plan.dataset.plugin, job.plan.protocol, found)
    results = list(metric.reduce(inputs, job.run))
    id, text = metric.protocol(job.plan.protocol)
    value = {
        "scores": [score.model_dump(mode="json") for score in results if isinstance(score, Score)],
        "rows": [row.model_dump(mode="json") for row in results if isinstance(row, CaseRow)],
        "protocols": {id: text},
    }
    job.out.put("scores", {SCORES: _by(write_json, value)}, {})


def _items(
    job: Job, source: str, volumes: StoredObject, made: tuple[StoredObject, str] | None, items: Iterable[str]
) -> Iterator[Item]:
    """The items of a source as a metric sees them, with what each is compared with."""
    cohort = job.cohort()
    kind = "images" if source.startswith("real") else "samples"
    for item in items:
        failed = volumes.sidecar(item).failed
        path = _volume_file(kind, volumes, item) if made is None else made[0].file(item, made[1])
        if made is not None and failed is None:
            failed = made[0].sidecar(item).failed
        reference = None
        if source == "reconstructions":
            reference = cohort.images.file(item, HU)
        elif source.startswith("conditional"):
            reference = cohort.images.file(item, LABELS)
        patient = job.plan.patients.get(item)
        yield Item(item, source, None if failed else path, patient, reference, failed)


HANDLERS: dict[str, Handler] = {
    "images": images,
    "weights": weights,
    "samples": samples,
    "conditional": conditional,
    "reconstructions": reconstructions,
    "features": features,
    "states": states,
    "labels": labels,
    "scores": scores,
}
