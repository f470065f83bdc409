"""The aggregate statistics of a run's real volumes, as a reference file."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medlord_bench.contracts import HasOverlaps, Run, specs
from medlord_bench.contracts.reference import (
    HasReference,
    MetricReference,
    ReferenceMeta,
    Statistics,
    reference_of,
    write_reference,
)
from medlord_bench.engine.plan import Plan, Step, read_plan
from medlord_bench.engine.steps.job import SCORES, Job
from medlord_bench.engine.steps.scores import Detail, inputs_of
from medlord_bench.engine.store import Store
from medlord_bench.engine.worker import missing, output
from medlord_bench.errors import MissingError, UserError
from medlord_bench.util.progress import make_progress
from medlord_bench.util.version import __version__

log = logging.getLogger("medlord_bench")

LEAST_PATIENTS = 10
PATH = re.compile(r"(?<![\w.])(?:[A-Za-z]:\\|~/|/)[^\s/\\]+[/\\]")
LEAST_LETTERS = 4  # shorter ids are most likely words


def export(store: Store, folder: Path, to: Path, allow_few: bool = False) -> ReferenceMeta:
    """Write the statistics of every metric of a finished run that has them.

    Raises `UserError` for a run without any, with statistics of fewer than `LEAST_PATIENTS` patients (unless `allow_few`), or
    where a text would take a path or a case's name with it; `MissingError` where the store lacks what they are made from.
    """
    plan = read_plan(folder)
    if reference_of(specs.make("datasets", plan.dataset)) is not None:
        raise UserError(f"{folder}: was measured against a reference file itself; expected a run with real volumes")
    run = Run(device="cpu", seed=0, progress=make_progress(), log=log, scratch=folder / "scratch")
    entries: list[MetricReference] = []
    arrays: dict[str, Mapping[str, Any]] = {}
    for step in _steps(plan):
        known, statistics = _metric(Job(plan, step, store, run))
        entries.append(known)
        if statistics is not None:
            arrays[known.name] = statistics.arrays
    if not arrays:
        names = ", ".join(one.name for one in entries) or "no metric"
        raise UserError(f"{folder}: no statistics can be made of {names}; expected fid or rvr with enough real volumes")
    meta = _meta(plan, entries)
    _check_patients(meta, allow_few)
    check_nothing_of_cases(meta, plan)
    write_reference(to, meta, arrays)
    return meta


def _steps(plan: Plan) -> list[Step]:
    """One `scores` step for each metric, of a contestant that was measured against real volumes if there is one."""
    found: dict[str, Step] = {}
    for step in plan.steps:
        if step.kind != "scores":
            continue
        real = any(one.source.is_real and one.items is not None for one in Detail.model_validate(step.detail).needs)
        if real or step.plugin.name not in found:
            found[step.plugin.name] = step
    return list(found.values())


def _metric(job: Job) -> tuple[MetricReference, Statistics | None]:
    """What the file says of a metric, and its statistics if it has any."""
    step, spec = job.step, job.step.plugin
    if missing(job.store, step):
        raise MissingError(
            f"{step.id}: not in the store {job.store.root}; run the same command again, which finishes it"
        )
    published = json.loads(output(job.store, step).file("scores", SCORES).read_text())
    ((id, text),) = published["protocols"].items()
    metric, statistics = job.plugin("metrics"), None
    version = metric.version
    if isinstance(metric, HasReference):
        if text["version"] != version:
            raise UserError(
                f"metric {spec.name}: version {text['version']} in the run, {version} here; measure again with "
                "medlord-bench run, or use the version that made the run"
            )
        for role in step.inputs.values():
            if lost := missing(job.store, job.plan.step(role)):
                raise MissingError(
                    f"{role}: the store {job.store.root} lacks {len(lost)} items of it; run again to make them"
                )
        statistics = metric.aggregate(inputs_of(job, id))
    held = {} if statistics is None else {"patients": statistics.patients, "arrays": tuple(sorted(statistics.arrays))}
    known = {"name": spec.name, "config": specs.without_places(spec.config), "protocol": id, "text": text}
    return MetricReference.model_validate({**known, **held}), statistics


def _meta(plan: Plan, metrics: list[MetricReference]) -> ReferenceMeta:
    dataset = specs.make("datasets", plan.dataset)
    return ReferenceMeta(
        medlord_bench=__version__,
        data=plan.protocol,
        overlaps=tuple(dataset.overlaps) if isinstance(dataset, HasOverlaps) else (),
        patients={split: len({plan.patients[item] for item in items}) for split, items in plan.splits.items()},
        metrics=tuple(metrics),
    )


def _check_patients(meta: ReferenceMeta, allow_few: bool) -> None:
    """Statistics of few patients say much of each of them (docs/reference.md)."""
    fewest = min((one.patients, one.name) for one in meta.metrics if one.patients is not None)
    if fewest[0] < LEAST_PATIENTS and not allow_few:
        raise UserError(
            f"metric {fewest[1]}: statistics of {fewest[0]} real patients, expected at least {LEAST_PATIENTS}, since those of "
            "few reveal much of each: measure more, or read docs/reference.md and give --allow-few"
        )


def check_nothing_of_cases(meta: ReferenceMeta, plan: Plan) -> None:
    """Raise `UserError` if a text names a place or a case: they come from the protocols of third parties too."""
    items = {item for split in plan.splits.values() for item in split}
    names = {*plan.patients.values(), *items, *(item.rpartition("-")[0] for item in items)}
    named = [re.escape(name) for name in names if len(name) >= LEAST_LETTERS and not name.isdigit()]
    cases = re.compile(rf"(?<!\w)(?:{'|'.join(named)})(?!\w)") if named else None
    for field, text in _texts(meta.model_dump(mode="json")):
        what = "a path" if PATH.search(text) else "the name of a case" if cases and cases.search(text) else ""
        if what:
            raise UserError(
                f"{field}: {text!r} has {what}, which must not leave; remove that setting and measure again"
            )


def _texts(value: Any, field: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a JSON value, keys included, with its field."""
    if isinstance(value, str):
        yield field, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield field, name
            yield from _texts(inner, f"{field}.{name}" if field else name)
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from _texts(inner, f"{field}.{place}")
