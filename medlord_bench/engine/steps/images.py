"""`images`: every case on the protocol's grid, with its mask, once for training and measuring."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from medlord_bench.contracts import SPLITS, Case, Failure, FrozenConfig, LabelMap, Volume, specs
from medlord_bench.contracts.specs import PluginSpec
from medlord_bench.engine.doubts import OUTLINE, padding_doubt
from medlord_bench.engine.plan import Step, item_id
from medlord_bench.engine.planning import REAL, Planning
from medlord_bench.engine.prepared import HU, LABELS
from medlord_bench.engine.steps.job import Job, npy
from medlord_bench.engine.steps.kind import Kind
from medlord_bench.errors import StepError, UserError

EXTERNAL = "images:external"  # the step of another data set's cases
Loaded = tuple[str, Volume, LabelMap | None]


class Detail(FrozenConfig):
    """masks: the segmenter that makes the masks, if any."""

    masks: PluginSpec | None


def plan(planning: Planning) -> Step:
    """Every case of every split."""
    protocol, masks = planning.protocol, planning.spec.masks
    identity = {
        "version": planning.dataset.version,
        "grid": protocol.grid.model_dump(mode="json"),
        "fit": protocol.fit,
        "masks": _masks(planning),
    }
    items = list(dict.fromkeys(item for split in SPLITS for item in planning.splits[split]))
    return planning.add("images", "images", REAL, planning.spec.dataset, identity, items, detail=Detail(masks=masks))


def plan_external(planning: Planning, spec: PluginSpec, where: str) -> Step:
    """Every case of another data set, on this run's grid, to test on. where: for messages.

    Raises `UserError` if it has no masks, or shares a case with this run's training cases.
    """
    dataset = specs.make("datasets", spec)
    if dataset.protocol.masks != "dataset":
        raise UserError(f"{where}: data set {spec.plugin} has no masks of its own; expected manual labels: give masks")
    cases = {item_id(case): case for split in SPLITS for case in dataset.cases(split)}
    shared = [item for split in ("train", "val") for item in planning.splits[split] if item in cases]
    if shared:
        raise UserError(
            f"{where}: case {shared[0]} of {spec.plugin} is a training case of this run; expected other cases"
        )
    planning.patients |= {item: case.patient for item, case in cases.items()}
    protocol = planning.protocol
    identity = {
        "version": dataset.version,
        "grid": protocol.grid.model_dump(mode="json"),
        "fit": protocol.fit,
        "masks": dataset.protocol.masks,
    }
    return planning.add(EXTERNAL, "images", "external", spec, identity, list(cases), detail=Detail(masks=None))


def _masks(planning: Planning) -> Any:
    """The origin of the masks of real images, for the key."""
    masks = planning.spec.masks
    if masks is None:
        return planning.protocol.masks
    ids = [case.id for cases in planning.cases.values() for case in cases]
    return {"segmenter": masks.plugin, **planning.segmenter_identity(masks, ids)}


class Images(Kind):
    name: ClassVar[str] = "images"
    bytes_per_voxel: ClassVar[float | None] = 3.0  # int16 and a uint8 mask, uncompressed

    def run(self, job: Job, items: Sequence[str]) -> None:
        """HU as `.npy` (memory-mapped by training), labels beside it."""
        from medlord_bench.volumes.checks import missing_regions
        from medlord_bench.volumes.grid import fit, fit_labels
        from medlord_bench.volumes.outline import outline

        dataset, masks = specs.dataset(job.step.plugin), Detail.model_validate(job.step.detail).masks
        protocol = job.plan.protocol
        cases = {item_id(case): case for split in job.plan.splits for case in dataset.cases(split)}
        regions = dict.fromkeys((*protocol.rvr_regions, *protocol.condition_regions, *protocol.adherence_regions))
        loaded: Iterator[Loaded] = ((item, *dataset.load(cases[item])) for item in items)
        if masks is not None:
            loaded = _segmented(job, masks, cases, loaded)
        shapes: dict[str, tuple[int, int, int]] = {}
        with job.run.progress.task(f"prepare {job.plan.dataset.plugin}", len(items)) as task:
            for item, volume, labels in loaded:
                shapes[cases[item].id] = volume.shape
                fitted = fit(volume, protocol.grid, protocol.fit).volume
                facts: dict[str, Any] = {"case": cases[item].id, "patient": cases[item].patient, "names": {}}
                facts |= {
                    "affine": fitted.affine.tolist(),
                    "source_shape": volume.shape,
                    "source_spacing": volume.spacing,
                    OUTLINE: outline(fitted.hu),
                }
                writers = {HU: npy(fitted.hu)}
                if labels is not None:
                    placed = fit_labels(labels, protocol.grid, protocol.fit)
                    facts["names"] = {str(value): name for value, name in labels.names.items()}
                    facts["missing_regions"], facts["cropped_regions"] = missing_regions(placed, regions)
                    if facts["missing_regions"]:
                        job.run.log.warning("case %s: no voxels of %s", item, ", ".join(facts["missing_regions"]))
                    writers[LABELS] = npy(placed.labels)
                job.out.put(item, writers, facts)
                task.advance()
                job.check_stop(item)
        if doubt := padding_doubt(shapes, protocol):
            job.run.log.warning("%s", doubt)


def _segmented(job: Job, masks: PluginSpec, cases: Mapping[str, Case], loaded: Iterator[Loaded]) -> Iterator[Loaded]:
    """Masks by a segmenter, on each image's own grid, in place of the data set's."""
    segmenter = specs.make("segmenters", masks)
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
