"""Features, label maps, states and scores of volumes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medlord_bench.cohort import HU, LABELS
from medlord_bench.contracts import Item, LabelMap, MetricInputs, Need, Volume
from medlord_bench.plan import generated_name
from medlord_bench.results import CaseRow, Replicates, Score
from medlord_bench.states import save_state
from medlord_bench.steps.job import SCORES, STATE, VOLUME, Job, by
from medlord_bench.store import StoredObject
from medlord_bench.util.files import write_json
from medlord_bench.volumes import not_ct, write_labels


@dataclass(frozen=True)
class Made:
    """What a step made of volumes: its object, and the suffix of its files."""

    object: StoredObject
    suffix: str


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


def _split_failed(job: Job, items: Sequence[str], source: StoredObject) -> list[str]:
    """The items that `source` has; those that failed there are published as failed here too."""
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
    kind, source = _source_kind(job), job.input("volumes")
    good = _split_failed(job, items, source)
    extractor = job.plugin("extractors")
    made = extractor.features((_open(kind, source, item) for item in good), job.run)
    _publish_states(job, good, made, f"features of {job.step.inputs['volumes']}")


def states(job: Job, items: Sequence[str]) -> None:
    """A metric's own case-by-case states, of volumes or of a segmenter's label maps."""
    source, volumes = job.step.detail["source"], job.input("volumes")
    labels = job.input("labels") if "labels" in job.step.inputs else None
    good = _split_failed(job, items, labels or volumes)
    made = None if labels is None else Made(labels, VOLUME)
    states = job.plugin("metrics").extract(_items(job, source, volumes, made, good), job.run)
    _publish_states(job, good, states, f"{job.step.plugin.plugin} of {job.step.inputs['volumes']}")


def _publish_states(job: Job, items: Sequence[str], made: Iterator[Mapping[str, Any]], title: str) -> None:
    with job.run.progress.task(title, len(items)) as task:
        for item, state in zip(items, made, strict=True):
            job.out.put(item, {STATE: by(save_state, state)}, {})
            task.advance()
            job.check_stop(item)


def labels(job: Job, items: Sequence[str]) -> None:
    """Label maps of volumes by a segmenter, once their values were seen to be HU."""
    good = [item for item in _split_failed(job, items, job.input("volumes")) if _is_ct(job, item)]
    kind, source = _source_kind(job), job.input("volumes")
    named = ((_name(job, kind, item), _open(kind, source, item)) for item in good)
    made = job.plugin("segmenters").segment(named, job.run)
    with job.run.progress.task(f"labels of {job.step.inputs['volumes']}", len(good)) as task:
        for item, label_map in zip(good, made, strict=True):
            if isinstance(label_map, LabelMap):
                facts = {"names": {str(value): name for value, name in label_map.names.items()}}
                job.out.put(item, {VOLUME: by(write_labels, label_map)}, facts)
            else:
                job.run.log.warning("%s: %s: no label map: %s", job.step.id, item, label_map.reason)
                job.out.put_failure(item, label_map.reason, {})
            task.advance()
            job.check_stop(item)


def _is_ct(job: Job, item: str) -> bool:
    """The HU gate. A segmenter given [0, 1] or windowed values returns empty masks, which would read as anatomy."""
    problem = not_ct(_open(_source_kind(job), job.input("volumes"), item))
    if problem is not None:
        job.out.put_failure(item, f"not segmented, since not CT in HU: {problem}", {})
    return problem is None


def _name(job: Job, kind: str, item: str) -> str:
    """What a segmenter is told a volume is called: as in `Segmenter.fingerprint`."""
    if kind == "images":
        return str(job.input("volumes").sidecar(item).facts["case"])
    return generated_name(job.plan.step(job.step.inputs["volumes"]), item)


def scores(job: Job, items: Sequence[str]) -> None:
    """Reduce a metric over everything it needs; publish its scores, case rows and replicates."""
    metric = job.plugin("metrics")
    found = {
        Need(need["source"], need["by"]): list(_needed(job, need["source"], need["by"], need["items"]))
        for need in job.step.detail["needs"]
        if need["items"] is not None
    }
    inputs = MetricInputs(job.step.label, job.plan.dataset.plugin, job.plan.protocol, found)
    results = list(metric.reduce(inputs, job.run))
    id, text = metric.protocol(job.plan.protocol)
    value: dict[str, Any] = {"protocols": {id: text}}
    for name, kind in (("scores", Score), ("rows", CaseRow), ("replicates", Replicates)):
        value[name] = [result.model_dump(mode="json") for result in results if isinstance(result, kind)]
    job.out.put("scores", {SCORES: by(write_json, value)}, {})


def _needed(job: Job, source: str, by: str, items: Sequence[str]) -> Iterator[Item]:
    """The items of one need of a metric."""
    made = job.plan.step(job.step.inputs[f"{source}|{by}"])
    volumes = job.plan.step(job.step.inputs[f"{source}|volumes"])
    object_ = job.store.object(made.kind, made.key)
    suffix = VOLUME if made.kind == "labels" else STATE
    found = None if made.id == volumes.id else Made(object_, suffix)
    return _items(job, source, job.store.object(volumes.kind, volumes.key), found, items)


def _items(job: Job, source: str, volumes: StoredObject, made: Made | None, items: Iterable[str]) -> Iterator[Item]:
    """The items of a source as a metric sees them, with what each is compared with."""
    cohort = job.cohort()
    kind = "images" if source.startswith("real") else "samples"
    labelled = made is not None and made.suffix == VOLUME
    for item in items:
        failed, names = volumes.sidecar(item).failed, {}
        if made is not None and failed is None:
            sidecar = made.object.sidecar(item)
            failed = sidecar.failed
            names = {int(value): name for value, name in sidecar.facts.get("names", {}).items()}
        path = _volume_file(kind, volumes, item) if made is None else made.object.file(item, made.suffix)
        reference, own = None, source != "samples"
        if own and (labelled or source.startswith("conditional")):
            reference = cohort.images.file(item, LABELS)
        elif source == "reconstructions":
            reference = cohort.images.file(item, HU)
        if reference is not None and not reference.exists():
            reference = None
        yield Item(
            id=item,
            source=source,
            path=None if failed else path,
            patient=job.plan.patients.get(item),
            reference=reference,
            failed=failed,
            spacing=cohort.spacing(item) if own else job.plan.protocol.grid.spacing,
            names=names,
            reference_names=cohort.label_names if reference is not None and reference.name.endswith(LABELS) else {},
        )
