"""The reader of a run folder for every report: typed, with missing parts as None or empty.

A run folder is complete: a copy of it can be read without the store.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medlord_bench.contracts.calibration import FILE, Record
from medlord_bench.contracts.results import CaseRow, ResultsFile, read_results
from medlord_bench.contracts.validation import read_json
from medlord_bench.engine import comparisons
from medlord_bench.engine.comparisons import ComparisonsFile
from medlord_bench.engine.efforts import Effort, budget, efforts
from medlord_bench.engine.step_records import Memory, StepRecord, name_of, read_lines, read_object, read_steps

COLLECTED = ("results/steps.json", "results/comparisons.json")
SAFE = re.compile(r"[^\w.@+-]")


@dataclass(frozen=True)
class Curve:
    """The training record of one stage: rows of {"step": int, NAME: float, "split": "val" on validation rows}."""

    contestant: str
    stage: str
    rows: Sequence[Mapping[str, Any]]
    unreadable: int


@dataclass(frozen=True)
class RunResults:
    """Everything a report shows of a run.

    started: ISO time. budget: of each contestant's training, as text.
    missing: files of a finished run that this folder lacks, where their absence would otherwise look like a result.
    """

    name: str
    config: str | None
    contestants: Sequence[str]
    dataset: str
    synthetic: bool
    started: str | None
    provenance: Mapping[str, Any] | None
    steps: Sequence[StepRecord]
    results: ResultsFile | None
    rows: Sequence[CaseRow]
    comparisons: ComparisonsFile
    calibration: Record | None
    montage: Mapping[str, Any] | None
    curves: Sequence[Curve]
    efforts: Sequence[Effort]
    budget: str
    missing: Sequence[str]

    @property
    def seconds(self) -> float | None:
        """Total of all steps that were timed in this run."""
        timed = [step.seconds for step in self.steps if step.seconds is not None]
        return sum(timed) if timed else None

    @property
    def memory_columns(self) -> Sequence[str]:
        """The fields of `Memory` that any step has: the columns of the table."""
        return [name for name in Memory.model_fields if any(getattr(step.memory, name) for step in self.steps)]

    @property
    def peak_gib(self) -> float | None:
        return max((step.peak_gib for step in self.steps if step.peak_gib is not None), default=None)


def read_run(folder: Path) -> RunResults:
    """Everything of a run that the page shows. Raises `UserError` naming a file that cannot be read."""
    plan, steps = read_object(folder / "plan.json") or {}, read_steps(folder)
    results, rows = read_results(folder / "results") if (folder / "results" / "scores.json").exists() else (None, [])
    provenance = read_object(folder / "provenance.json")
    dataset = plan.get("dataset") or {}
    facts = [dataset, plan.get("protocol") or {}, *(results.protocols.values() if results else ())]
    config = folder / "run.yaml"
    return RunResults(
        name=folder.resolve().name,
        config=config.read_text(errors="replace") if config.exists() else None,
        contestants=_contestants(plan, results),
        dataset=_dataset_name(dataset, results),
        synthetic=any(value is True for fact in facts for value in _values(fact, "synthetic")),
        started=(provenance or {}).get("started"),
        provenance=provenance,
        steps=steps,
        results=results,
        rows=rows,
        comparisons=comparisons.read(folder / "results"),
        calibration=_calibration(folder / "results" / FILE),
        montage=read_object(folder / "results" / "montage.json"),
        curves=_curves(folder / "results" / "curves", [str(step.get("id", "")) for step in plan.get("steps") or []]),
        efforts=efforts(plan, {step.name: step.trained for step in steps}),
        budget=budget(plan),
        missing=[name for name in COLLECTED if results is not None and not (folder / name).exists()],
    )


def _calibration(path: Path) -> Record | None:
    return read_json(Record, path) if path.exists() else None


def _contestants(plan: Mapping[str, Any], results: ResultsFile | None) -> list[str]:
    named = [name_of(entry) for entry in plan.get("contestants") or []]
    return named or list(dict.fromkeys(score.generator for score in (results.scores if results else ())))


def _dataset_name(dataset: Any, results: ResultsFile | None) -> str:
    if found := name_of(dataset):
        return found
    return ", ".join(dict.fromkeys(score.dataset for score in results.scores)) if results else ""


def _values(value: Any, key: str) -> Iterator[Any]:
    """Every value under `key` at any depth."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name == key:
                yield inner
            yield from _values(inner, key)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _values(inner, key)


def _curves(folder: Path, steps: Sequence[str]) -> list[Curve]:
    """The training records, each contestant's stages in the order of the plan's steps."""

    def order(path: Path) -> tuple[str, int, str]:
        place = next((i for i, step in enumerate(steps) if step.endswith(f":{path.stem}")), len(steps))
        return path.parent.name, place, path.stem

    if not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.glob("*/*.jsonl"), key=order):
        rows, unreadable = read_lines(path)
        found.append(Curve(path.parent.name, path.stem, rows, unreadable))
    return found


def picture_path(kind: str, contestant: str, item: str) -> str:
    """The path at which `collect` stores the mid planes of a volume (`volumes.planes`), below the run folder."""
    return f"results/pictures/{kind}/{SAFE.sub('_', contestant)}/{SAFE.sub('_', item)}.safetensors"
