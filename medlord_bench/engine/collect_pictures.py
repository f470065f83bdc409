"""Gather the pictures of a run into its folder: mid planes for figures, volumes on a coarse grid to scroll through."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medlord_bench.contracts.metrics import Quantity
from medlord_bench.contracts.regions import values_of
from medlord_bench.contracts.results import CaseRow
from medlord_bench.engine.plan import Plan, Step
from medlord_bench.engine.planning import REAL
from medlord_bench.engine.prepared import HU, LABELS
from medlord_bench.engine.store import Store
from medlord_bench.engine.worker import output
from medlord_bench.results.picks import picks
from medlord_bench.results.pictures import (
    Montage,
    MontageItem,
    MontageRow,
    picture_path,
    volume_path,
    write_montage,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

VOLUMES_PER_ROW = 3  # volumes per row of the montage
VOLUME = ".nii.gz"
TITLES = {
    "samples": "{}: samples",
    "conditional": "{}: samples conditioned on the masks of the real test volumes above",
    "reconstructions": "{}: reconstructions of the real test volumes above",
}


def collect_pictures(
    store: Store, plan: Plan, folder: Path, rows: Sequence[CaseRow], quantities: Mapping[str, Quantity]
) -> None:
    """Write `montage.json`, mid planes and coarse volumes of what reports show.

    The montage has real test volumes, then all contestants' samples, then their other volumes: the first few by index,
    not selected. The picks and the nearest pairs of the audit are chosen by their numbers (`results.picks`).
    """
    album = _Album(store, plan, folder)
    test = list(plan.splits["test"])
    made = [album.row(f"real {plan.dataset.plugin} (test)", "images", REAL, test)]
    for kind, title in TITLES.items():
        for step in plan.steps:
            if step.kind == kind:
                made.append(album.row(title.format(step.contestant), kind, step.contestant, step.items))
    window = plan.protocol.grid.hu_window
    montage = Montage(
        window=(max(window[0], -1000), min(window[1], 1000)),
        spacing=plan.protocol.grid.spacing,
        rows=tuple(row for row in made if row.items),
        regions=album.regions(plan.protocol.condition_regions, test),
    )
    write_montage(folder, montage)
    for pick in picks(rows, quantities):
        album.add(pick.kind, pick.contestant, pick.item)
        album.add("images", REAL, pick.beside)
    paired = {one.pairs for one in quantities.values() if one.pairs}
    for row in rows:
        if row.metric in paired:
            album.add("samples", row.generator, row.case, volume=False)
            album.add("images", REAL, row.against, volume=False)


class _Album:
    """The pictures of a run folder, each written once."""

    def __init__(self, store: Store, plan: Plan, folder: Path) -> None:
        self.store, self.folder, self.spacing = store, folder, plan.protocol.grid.spacing
        self.steps = {(step.kind, step.contestant): step for step in plan.steps}
        self.written: set[Path] = set()

    def row(self, title: str, kind: str, contestant: str, items: Iterable[str]) -> MontageRow:
        """The first items that are published. Failed ones stay in the row, with the reason in place of a picture."""
        shown: list[MontageItem] = []
        for item in list(items)[:VOLUMES_PER_ROW]:
            step = self.steps[kind, contestant]
            if output(self.store, step).has(item):
                failed = output(self.store, step).sidecar(item).failed
                path = None if failed else self.add(kind, contestant, item)
                shown.append(MontageItem(id=item, path=path, failed=failed))
        return MontageRow(title=title, kind=kind, contestant=contestant, items=tuple(shown))

    def regions(self, wanted: Iterable[str], cases: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """Region -> its labels in the masks of these cases; those without any are left out."""
        names: dict[int, str] = {}
        images = output(self.store, self.steps["images", REAL])
        for case in cases:
            known = images.sidecar(case).facts.get("names", {}) if images.has(case) else {}
            names |= {int(value): str(name) for value, name in known.items()}
        found = {region: tuple(sorted(values_of(region, names))) for region in wanted}
        return {region: values for region, values in found.items() if values}

    def add(self, kind: str, contestant: str, item: str, volume: bool = True) -> str | None:
        """Write the pictures of a volume, with its mask if it is a real one; returns the path of its mid planes, relative
        to the run folder, or None if it is not published. volume: whether to write the coarse volume too."""
        from medlord_bench.volumes.planes import planes_of, write_planes
        from medlord_bench.volumes.small import small_of, write_small

        step = self.steps.get((kind, contestant))
        if step is None or not output(self.store, step).has(item) or output(self.store, step).sidecar(item).failed:
            return None
        place, small = picture_path(kind, contestant, item), volume_path(kind, contestant, item)
        wanted = {self.folder / place, *([self.folder / small] if volume else [])} - self.written
        if wanted:
            hu, spacing, labels = self._read(step, item)
            write_planes(self.folder / place, planes_of(hu, spacing))
            if labels is not None:
                write_planes(self.folder / picture_path("masks", contestant, item), planes_of(labels, spacing))
            if volume:
                write_small(self.folder / small, small_of(hu, spacing or self.spacing, labels))
            self.written |= wanted
        return place

    def _read(
        self, step: Step, item: str
    ) -> tuple[NDArray[Any], tuple[float, float, float] | None, NDArray[Any] | None]:
        """HU, voxel size and labels. Real volumes are on the protocol's grid, whose voxel size the montage has."""
        import numpy as np

        from medlord_bench.volumes.arrays import read_hu
        from medlord_bench.volumes.io import read_volume

        made = output(self.store, step)
        if step.kind == "images":
            mask = made.file(item, LABELS)
            labels = np.load(mask, mmap_mode="r", allow_pickle=False) if mask.exists() else None
            return read_hu(made.file(item, HU)), None, labels
        volume = read_volume(made.file(item, VOLUME))
        return volume.hu, volume.spacing, None
