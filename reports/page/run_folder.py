"""Reading a run folder: everything the page shows, with what is absent left as None or empty."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from medlord_bench.contracts.calibration import FILE, Record
from medlord_bench.contracts.results import CaseRow, ResultsFile, read_results
from medlord_bench.contracts.validation import read_json
from medlord_bench.engine import comparisons
from medlord_bench.engine.comparisons import ComparisonsFile
from medlord_bench.errors import UserError

from .efforts import Effort, budget, efforts


@dataclass(frozen=True)
class Memory:
    """What a step was predicted to take and took, in GiB, the highest of its shards; None where it is not known.

    evidence: what kind of figures these are, e.g. "measured-on-24GB"; "predicted" where nothing was measured.
    """

    predicted: float | None = None
    predicted_allocated: float | None = None
    allocated: float | None = None
    reserved: float | None = None
    device: float | None = None
    resident: float | None = None
    programs: float | None = None
    card: str = ""
    evidence: str = ""


@dataclass(frozen=True)
class Step:
    """What one step cost. seconds: summed over its shards; peak_gib: the highest of them.

    memory: of this run, or of the earlier one that left the result in the store.
    """

    name: str
    kind: str
    plugin: str
    state: str
    seconds: float | None
    peak_gib: float | None
    device: str
    memory: Memory = Memory()

    @property
    def on_cpu(self) -> bool:
        """Whether the peak is the process's resident set."""
        return "cpu" in self.device.split(", ")


@dataclass(frozen=True)
class Curve:
    """The training record of one stage: rows of {"step": int, NAME: float, "split": "val" on validation rows}."""

    contestant: str
    stage: str
    rows: Sequence[Mapping[str, Any]]
    unreadable: int


@dataclass(frozen=True)
class RunFolder:
    name: str
    config: str | None
    contestants: Sequence[str]
    dataset: str
    synthetic: bool
    started: str | None
    provenance: Mapping[str, Any] | None
    steps: Sequence[Step]
    results: ResultsFile | None
    rows: Sequence[CaseRow]
    comparisons: ComparisonsFile
    calibration: Record | None
    montage: Mapping[str, Any] | None
    curves: Sequence[Curve]
    efforts: Sequence[Effort]
    budget: str

    @property
    def seconds(self) -> float | None:
        """Of all steps that were timed in this run."""
        timed = [step.seconds for step in self.steps if step.seconds is not None]
        return sum(timed) if timed else None

    @property
    def memory_columns(self) -> Sequence[str]:
        """The fields of `Memory` that any step has; the rest are no columns."""
        return [field.name for field in fields(Memory) if any(getattr(s.memory, field.name) for s in self.steps)]

    @property
    def peak_gib(self) -> float | None:
        return max((step.peak_gib for step in self.steps if step.peak_gib is not None), default=None)


def read_run(folder: Path) -> RunFolder:
    """Everything of a run that the page shows. Raises `UserError` naming a file that cannot be read."""
    plan = _json(folder / "plan.json") or {}
    results, rows = read_results(folder / "results") if (folder / "results" / "scores.json").exists() else (None, [])
    provenance = _json(folder / "provenance.json")
    dataset = plan.get("dataset") or {}
    facts = [dataset, plan.get("protocol") or {}, *(results.protocols.values() if results else ())]
    config = folder / "run.yaml"
    return RunFolder(
        name=folder.resolve().name,
        config=config.read_text(errors="replace") if config.exists() else None,
        contestants=_contestants(plan, results),
        dataset=_dataset_name(dataset, results),
        synthetic=any(value is True for fact in facts for value in _values(fact, "synthetic")),
        started=(provenance or {}).get("started"),
        provenance=provenance,
        steps=_steps(folder, plan.get("steps") or []),
        results=results,
        rows=rows,
        comparisons=comparisons.read(folder / "results"),
        calibration=_calibration(folder / "results" / FILE),
        montage=_json(folder / "results" / "montage.json"),
        curves=_curves(folder / "results" / "curves", [str(step.get("id", "")) for step in plan.get("steps") or []]),
        efforts=efforts(plan, lambda step: _facts(folder, step)),
        budget=budget(plan),
    )


def _facts(folder: Path, step: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the sidecar of a step's weights says; empty where they are not there."""
    return (_json(folder.parent.parent / _place(step) / "items" / "weights.json") or {}).get("facts") or {}


def _calibration(path: Path) -> Record | None:
    return read_json(Record, path) if path.exists() else None


def _contestants(plan: Mapping[str, Any], results: ResultsFile | None) -> list[str]:
    named = [_name(entry) for entry in plan.get("contestants") or []]
    return named or list(dict.fromkeys(score.generator for score in (results.scores if results else ())))


def _dataset_name(dataset: Any, results: ResultsFile | None) -> str:
    if found := _name(dataset):
        return found
    return ", ".join(dict.fromkeys(score.dataset for score in results.scores)) if results else ""


def _name(entry: Any) -> str:
    if isinstance(entry, Mapping):
        return str(entry.get("label") or entry.get("name") or entry.get("plugin") or "")
    return str(entry)


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


def _steps(folder: Path, planned: Sequence[Mapping[str, Any]]) -> list[Step]:
    events, _ = _json_lines(folder / "events.jsonl")
    by_step: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        by_step.setdefault(str(event.get("step", "")), []).append(event)
    forecast = (_json(folder / "forecast.json") or {}).get("steps") or {}
    known = [str(step.get("id", "")) for step in planned]
    others: list[Mapping[str, Any]] = [{"id": name} for name in by_step if name and name not in known]
    found = []
    for step in [*planned, *others]:
        name = str(step.get("id", ""))
        found.append(_step(folder, step, by_step.get(name, []), forecast.get(name) or {}))
    return found


def _step(
    folder: Path, step: Mapping[str, Any], events: Sequence[Mapping[str, Any]], forecast: Mapping[str, Any]
) -> Step:
    seconds = [float(event["seconds"]) for event in events if event.get("seconds") is not None]
    peaks = [float(event["peak_gib"]) for event in events if event.get("peak_gib") is not None]
    devices = dict.fromkeys(str(event["device"]) for event in events if event.get("device"))
    return Step(
        name=str(step.get("id", "")),
        kind=str(step.get("kind") or ""),
        plugin=_name(step.get("plugin") or ""),
        state=_state(folder, step, events),
        seconds=sum(seconds) if seconds else None,
        peak_gib=max(peaks) if peaks else None,
        device=", ".join(devices),
        memory=_memory(folder, step, events, forecast),
    )


def _memory(
    folder: Path, step: Mapping[str, Any], events: Sequence[Mapping[str, Any]], forecast: Mapping[str, Any]
) -> Memory:
    """From the events of this run; else from the sidecars of what an earlier run made; else what was predicted."""
    measured = [event["memory"] for event in events if isinstance(event.get("memory"), Mapping)]
    if not measured:
        items = (folder.parent.parent / _place(step) / "items").glob("*.json")
        whole = sorted(path for path in items if not path.name.startswith("."))  # what a kill left has a dot
        facts = [(_json(path) or {}).get("facts") or {} for path in whole]
        measured = [fact["memory"] for fact in facts if isinstance(fact.get("memory"), Mapping)]
    figures: dict[str, float] = {}
    for name in ("predicted", "predicted_allocated", "allocated", "reserved", "device", "resident", "programs"):
        known = [float(memory[name]) for memory in measured if memory.get(name) is not None]
        if known:
            figures[name] = max(known)
    for name, key in (("predicted", "total_gib"), ("predicted_allocated", "allocated_gib")):
        if forecast.get(key) is not None:
            figures.setdefault(name, float(forecast[key]))
    words = {
        name: ", ".join(dict.fromkeys(str(memory[name]) for memory in measured if memory.get(name)))
        for name in ("card", "evidence")
    }
    if not words["evidence"] and "predicted" in figures:
        words["evidence"] = "predicted"
    return Memory(**figures, **words)  # type: ignore[arg-type]


def _place(step: Mapping[str, Any]) -> str:
    """The folder of a step's object, in the store."""
    return str(step.get("folder") or f"objects/{step.get('kind')}/{step.get('key')}")


def _state(folder: Path, step: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> str:
    if events:
        last = str(events[-1].get("event", ""))
        return {"start": "not finished", "done": "done", "failed": "failed"}.get(last, last)
    store = folder.parent.parent
    if any((base / _place(step) / "manifest.json").exists() for base in (folder, store)):
        return "done before"
    return "not run"


def _curves(folder: Path, steps: Sequence[str]) -> list[Curve]:
    """The training records, each contestant's stages in the order of the plan's steps."""

    def order(path: Path) -> tuple[str, int, str]:
        place = next((i for i, step in enumerate(steps) if step.endswith(f":{path.stem}")), len(steps))
        return path.parent.name, place, path.stem

    if not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.glob("*/*.jsonl"), key=order):
        rows, unreadable = _json_lines(path)
        found.append(Curve(path.parent.name, path.stem, rows, unreadable))
    return found


def _json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); it is damaged: run the same command again to write it") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds a {type(found).__name__}, expected an object; run the same command again")
    return found


def _json_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The rows of a log and how many lines are no rows: a killed run may leave half a line behind."""
    if not path.exists():
        return [], 0
    rows, unreadable = [], 0
    for line in path.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            unreadable += bool(line.strip())
    return rows, unreadable
