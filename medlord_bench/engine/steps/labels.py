"""`labels`: a segmenter's label maps of volumes whose values are HU.

Every volume is segmented at the voxel size of the protocol's grid. A grid without one has the median voxel size of the
training images: for real volumes too, since a segmenter's result depends on the voxel size, and samples have none of their
own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

from medlord_bench.contracts import LabelMap, Volume
from medlord_bench.contracts.specs import PluginSpec
from medlord_bench.engine.plan import Step, generated_name, item_id
from medlord_bench.engine.planning import REAL, Planning
from medlord_bench.engine.steps import voxel_size
from medlord_bench.engine.steps.job import VOLUME, Job, by
from medlord_bench.engine.steps.kind import Kind
from medlord_bench.engine.steps.sources import Volumes, usable, volumes
from medlord_bench.util.hashing import digest


def plan(planning: Planning, spec: PluginSpec, of: Step, items: Iterable[str]) -> Step:
    """Label maps of the volumes of a step; one step for all metrics that need them."""
    items = list(items)
    if of.contestant == REAL:
        by_item = {item_id(case): case.id for cases in planning.cases.values() for case in cases}
        names = [by_item[item] for item in items]
    else:
        names = [generated_name(of, item) for item in items]
    identity = planning.segmenter_identity(spec, names)
    identity |= voxel_size.identity(planning)
    # Two metrics may need two configurations, and a fingerprint may depend on the list of cases.
    id = f"labels:{of.id}:{spec.plugin}-{digest(identity)[:6]}"
    return planning.add(id, "labels", of.contestant, spec, identity, items, {"volumes": of.id})


class Labels(Kind):
    name: ClassVar[str] = "labels"
    less_memory: ClassVar[str] = "--batch 1"

    def run(self, job: Job, items: Sequence[str]) -> None:
        from medlord_bench.volumes.io import write_labels

        source = volumes(job)
        good = [item for item in usable(job, items, source.object) if _is_ct(job, source, item)]
        size = voxel_size.of_all(job)
        affines: deque[Any] = deque()  # of the volumes that the segmenter has read and not answered yet

        def named() -> Iterator[tuple[str, Volume]]:
            for item in good:
                volume = source.open(item)
                affines.append(volume.affine)
                yield source.name(item), voxel_size.at(volume, size)

        made = job.plugin("segmenters").segment(named(), job.run)
        with job.run.progress.task(f"labels of {source.step.id}", len(good)) as task:
            for item, label_map in zip(good, made, strict=True):
                affine = affines.popleft()
                if isinstance(label_map, LabelMap):
                    facts: dict[str, Any] = {"names": {str(value): name for value, name in label_map.names.items()}}
                    facts |= {} if size is None else {"segmented_at_mm": size}
                    placed = label_map if size is None else LabelMap(label_map.labels, affine, label_map.names)
                    job.out.put(item, {VOLUME: by(write_labels, placed)}, facts)
                else:
                    job.run.log.warning("%s: %s: no label map: %s", job.step.id, item, label_map.reason)
                    job.out.put_failure(item, label_map.reason, {})
                task.advance()
                job.check_stop(item)


def _is_ct(job: Job, source: Volumes, item: str) -> bool:
    """Whether the values are HU. For [0, 1] or windowed values a segmenter returns empty masks, which would be read
    as missing organs."""
    from medlord_bench.volumes.checks import not_ct

    problem = not_ct(source.open(item), job.plan.protocol.grid.hu_window)
    if problem is not None:
        job.out.put_failure(item, f"not segmented: not CT in HU: {problem}", {})
    return problem is None
