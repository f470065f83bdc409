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
from medlord_bench.engine.collect_inputs import inputs_of
from medlord_bench.engine.collect_pictures import collect_pictures
from medlord_bench.engine.plan import Plan
from medlord_bench.engine.store import Store
from medlord_bench.engine.worker import output
from medlord_bench.results import comparisons, inputs, references
from medlord_bench.results.run_results import curve_folder
from medlord_bench.results.step_records import record_steps

SCORES = ".scores.json"


def collect(store: Store, plan: Plan, folder: Path) -> None:
    """Write scores, comparisons, case rows, pictures and curves of every step that is complete."""
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
    plugins = _plugins(plan)
    found = ResultsFile(
        scores=tuple(scores),
        protocols=protocols,
        controls=controls,
        quantities=tuple(quantities.values()),
        references=references.collect(results, plugins),
        licences=_licences(plugins),
        seen_in_pretraining=plan.seen_in_pretraining,
        patients_unknown=plan.patients_unknown,
    )
    write_results(results, found, rows)
    write_replicates(results, replicates)
    comparisons.write(results, comparisons.compare(scores, rows, replicates, quantities))
    inputs.write(results, inputs_of(store, plan))
    calibrated = calibration.latest(store.root)
    if calibrated is not None:
        calibration.write(calibrated, results)
    collect_pictures(store, plan, folder, rows, quantities)
    record_steps(folder, store.root)
    _curves(store, plan, results / "curves")


def _plugins(plan: Plan) -> list[tuple[str, str]]:
    """(kind, name) of every plugin that took part, each once."""
    named = [("generators", one.plugin) for one in plan.contestants] + [("datasets", plan.dataset.plugin)]
    kinds = {"scores": "metrics", "features": "extractors", "labels": "segmenters"}
    named += [(kinds[step.kind], step.plugin.plugin) for step in plan.steps if step.kind in kinds]
    return list(dict.fromkeys(named))


def _licences(plugins: Iterable[tuple[str, str]]) -> dict[str, str]:
    """ "kind/name" -> the licence that a plugin declares for the data or weights it uses."""
    declared = {f"{kind}/{name}": getattr(registry.load(kind, name), "licence", "") for kind, name in plugins}
    return {name: licence for name, licence in declared.items() if licence}


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
