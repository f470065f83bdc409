"""Gather what the steps published into the run folder's `results/`: the input of every report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medlord_bench.contracts import calibration, registry
from medlord_bench.contracts.metrics import quantities_of
from medlord_bench.contracts.results import CaseRow, Replicates, ResultsFile, Score, write_replicates, write_results
from medlord_bench.engine.plan import Plan, Step
from medlord_bench.engine.planning import REAL
from medlord_bench.engine.prepared import HU
from medlord_bench.engine.store import Store, StoredObject
from medlord_bench.engine.worker import output
from medlord_bench.results import comparisons
from medlord_bench.results.pictures import Montage, MontageItem, MontageRow, picture_path, write_montage
from medlord_bench.results.run_results import curve_folder
from medlord_bench.results.step_records import record_steps
from medlord_bench.volumes.arrays import read_hu
from medlord_bench.volumes.io import read_volume
from medlord_bench.volumes.planes import planes_of, write_planes

VOLUMES_PER_ROW = 3  # volumes per row of the montage
VOLUME, SCORES = ".nii.gz", ".scores.json"


def collect(store: Store, plan: Plan, folder: Path) -> None:
    """Write scores, comparisons, case rows, montage and curves of every step that is complete."""
    results = folder / "results"
    scores: list[Score] = []
    rows: list[CaseRow] = []
    replicates: list[Replicates] = []
    protocols: dict[str, Any] = {}
    for step in plan.steps:
        if step.kind == "scores" and output(store, step).has("scores"):
            made = json.loads(output(store, step).file("scores", SCORES).read_text())
            scores += [Score.model_validate(score) for score in made["scores"]]
            rows += [CaseRow.model_validate(row) for row in made["rows"]]
            replicates += [Replicates.model_validate(one) for one in made["replicates"]]
            protocols |= made["protocols"]
    rows = list(dict.fromkeys(rows))  # the rows of the real volumes are repeated by each contestant's reduction
    classes = {one.name: registry.load("generators", one.plugin) for one in plan.contestants}
    controls = tuple(name for name, plugin in classes.items() if getattr(plugin, "control", False))
    metrics = dict.fromkeys(step.plugin.plugin for step in plan.steps if step.kind == "scores")
    quantities = quantities_of({name: registry.load("metrics", name) for name in metrics})
    found = ResultsFile(
        scores=tuple(scores),
        protocols=protocols,
        controls=controls,
        quantities=tuple(quantities.values()),
        seen_in_pretraining=plan.seen_in_pretraining,
    )
    write_results(results, found, rows)
    write_replicates(results, replicates)
    comparisons.write(results, comparisons.compare(scores, rows, replicates, quantities))
    calibrated = calibration.latest(store.root)
    if calibrated is not None:
        calibration.write(calibrated, results)
    write_montage(folder, _montage(store, plan, folder))
    _pairs(store, plan, [row for row in rows if row.metric in {one.pairs for one in found.quantities}], folder)
    record_steps(folder, store.root)
    _curves(store, plan, results / "curves")


def _montage(store: Store, plan: Plan, folder: Path) -> Montage:
    """Real test volumes, then all contestants' samples, then their other volumes: the first few by index, not
    selected."""
    grid = plan.protocol.grid
    images = next(step for step in plan.steps if step.kind == "images")
    test = list(plan.splits["test"])
    rows = [_row(store, folder, f"real {plan.dataset.plugin} (test)", images, test[:VOLUMES_PER_ROW])]
    titles = {
        "samples": "{}: samples",
        "conditional": "{}: samples conditioned on the masks of the real test volumes above",
        "reconstructions": "{}: reconstructions of the real test volumes above",
    }
    for kind, title in titles.items():
        steps = [step for step in plan.steps if step.kind == kind]
        rows += [
            _row(store, folder, title.format(step.contestant), step, step.items[:VOLUMES_PER_ROW]) for step in steps
        ]
    return Montage(
        window=(max(grid.hu_window[0], -1000), min(grid.hu_window[1], 1000)),
        spacing=grid.spacing,
        rows=tuple(row for row in rows if row.items),
    )


def _row(store: Store, folder: Path, title: str, step: Step, items: Iterable[str]) -> MontageRow:
    """Failed items stay in the row, with the reason in place of a picture."""
    made = output(store, step)
    shown: list[MontageItem] = []
    for item in items:
        if made.has(item):
            failed = made.sidecar(item).failed
            path = None if failed else _picture(made, step, item, folder)
            shown.append(MontageItem(id=item, path=path, failed=failed))
    return MontageRow(title=title, kind=step.kind, contestant=step.contestant, items=tuple(shown))


def _picture(made: StoredObject, step: Step, item: str, folder: Path) -> str:
    """Write the mid planes of a volume into the run folder; returns their path relative to it."""
    place = picture_path(step.kind, step.contestant, item)
    if step.kind == "images":  # on the protocol's grid, whose voxel size the montage has
        write_planes(folder / place, planes_of(read_hu(made.file(item, HU))))
    else:
        volume = read_volume(made.file(item, VOLUME))
        write_planes(folder / place, planes_of(volume.hu, volume.spacing))
    return place


def _pairs(store: Store, plan: Plan, rows: Iterable[CaseRow], folder: Path) -> None:
    """The pictures of the samples most similar to a training image, and of those images."""
    steps = {(step.kind, step.contestant): step for step in plan.steps}
    for row in rows:
        for kind, contestant, item in (("samples", row.generator, row.case), ("images", REAL, row.against)):
            step = steps.get((kind, contestant))
            if step is not None and output(store, step).has(item):
                _picture(output(store, step), step, item, folder)


def _curves(store: Store, plan: Plan, out: Path) -> None:
    """Copy each training's curves, truncated at the steps of this run."""
    for step in plan.steps:
        if step.kind != "weights" or not output(store, step).has("weights"):
            continue
        training = output(store, step).sidecar("weights").facts["training"]
        source = store.object("trainings", training).path / "curves.jsonl"
        if source.exists():
            folder = out / curve_folder(step.contestant)
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / f"{step.detail['stage']}.jsonl")
