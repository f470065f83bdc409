"""The cost and origin of every step of a run: `results/steps.json`, for reports, which do not read the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medlord_bench.contracts import FrozenConfig
from medlord_bench.contracts.validation import read_json
from medlord_bench.errors import UserError
from medlord_bench.util.documents import parse_json
from medlord_bench.util.files import write_text

FILE = "steps.json"
SCHEMA_VERSION = 1


class Memory(FrozenConfig):
    """Predicted and measured memory of a step, in GiB, the highest of its shards; None if unknown.

    evidence: the kind of figures, e.g. "measured-on-24GB"; "predicted" if nothing was measured.
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


class Trained(FrozenConfig):
    """Steps and device seconds of a stage's training, over all sessions."""

    steps: int | None = None
    seconds: float | None = None
    device: str = ""


class StepRecord(FrozenConfig):
    """The cost of one step. contestant: whose step it is; empty or "real" for shared ones. seconds: summed over its shards; peak_gib: the highest of them.

    items: number of items that took these seconds. memory: of this run, or of the earlier run that stored the result. trained: of a completed training.
    """

    name: str
    kind: str
    plugin: str
    contestant: str = ""
    state: str
    seconds: float | None
    peak_gib: float | None
    device: str
    items: int | None = None
    memory: Memory = Memory()
    trained: Trained | None = None

    @property
    def on_cpu(self) -> bool:
        """Whether the peak is the process's resident set."""
        return "cpu" in self.device.split(", ")


class StepsFile(FrozenConfig):
    """`results/steps.json`."""

    schema_version: int = SCHEMA_VERSION
    steps: tuple[StepRecord, ...]


def record_steps(folder: Path, store: Path) -> None:
    """Write the records of a run's steps into its folder. store: where its objects are."""
    write_text(folder / "results" / FILE, StepsFile(steps=tuple(_steps(folder, store))).model_dump_json(indent=1))


def read_steps(folder: Path) -> tuple[StepRecord, ...]:
    """The records of a run's steps; for an unfinished run, those known from its own folder."""
    path = folder / "results" / FILE
    return read_json(StepsFile, path).steps if path.exists() else tuple(_steps(folder, None))


def _steps(folder: Path, store: Path | None) -> list[StepRecord]:
    planned: Sequence[Mapping[str, Any]] = (read_object(folder / "plan.json") or {}).get("steps") or []
    events = [
        row
        for path in (folder / "events.jsonl", *sorted((folder / "events").glob("*.jsonl")))
        for row in read_lines(path)[0]
    ]
    by_step: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        by_step.setdefault(str(event.get("step", "")), []).append(event)
    forecast = (read_object(folder / "forecast.json") or {}).get("steps") or {}
    known = [str(step.get("id", "")) for step in planned]
    others: list[Mapping[str, Any]] = [{"id": name} for name in by_step if name and name not in known]
    found = []
    for step in [*planned, *others]:
        name = str(step.get("id", ""))
        found.append(_step(store, step, by_step.get(name, []), forecast.get(name) or {}))
    return found


def _step(
    store: Path | None, step: Mapping[str, Any], events: Sequence[Mapping[str, Any]], forecast: Mapping[str, Any]
) -> StepRecord:
    seconds = [float(event["seconds"]) for event in events if event.get("seconds") is not None]
    peaks = [float(event["peak_gib"]) for event in events if event.get("peak_gib") is not None]
    items = [int(event["items"]) for event in events if event.get("seconds") is not None and event.get("items")]
    devices = dict.fromkeys(str(event["device"]) for event in events if event.get("device"))
    return StepRecord(
        name=str(step.get("id", "")),
        kind=str(step.get("kind") or ""),
        plugin=name_of(step.get("plugin") or ""),
        contestant=str(step.get("contestant") or ""),
        state=_state(store, step, events),
        seconds=sum(seconds) if seconds else None,
        peak_gib=max(peaks) if peaks else None,
        device=", ".join(devices),
        items=sum(items) if items else None,
        memory=_memory(store, step, events, forecast),
        trained=_trained(store, step),
    )


def _memory(
    store: Path | None, step: Mapping[str, Any], events: Sequence[Mapping[str, Any]], forecast: Mapping[str, Any]
) -> Memory:
    """From the events of this run; else from the sidecars of an earlier run's results; else the prediction."""
    measured = [event["memory"] for event in events if isinstance(event.get("memory"), Mapping)]
    if not measured and store is not None:
        items = (store / _place(step) / "items").glob("*.json")
        whole = sorted(path for path in items if not path.name.startswith("."))  # remains of a kill begin with a dot
        facts = [(read_object(path) or {}).get("facts") or {} for path in whole]
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
    return Memory(**figures, **words)


def _place(step: Mapping[str, Any]) -> str:
    """The folder of a step's object, in the store."""
    return str(step.get("folder") or f"objects/{step.get('kind')}/{step.get('key')}")


def _state(store: Path | None, step: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> str:
    if events:
        last = str(events[-1].get("event", ""))
        return {"start": "not finished", "done": "done", "failed": "failed"}.get(last, last)
    if store is not None and (store / _place(step) / "manifest.json").exists():
        return "done before"
    return "not run"


def _trained(store: Path | None, step: Mapping[str, Any]) -> Trained | None:
    """The facts in the sidecar of a training's weights."""
    if store is None or step.get("kind") != "weights":
        return None
    facts = (read_object(store / _place(step) / "items" / "weights.json") or {}).get("facts") or {}
    return Trained.model_validate(facts["trained"]) if facts.get("trained") else None


def name_of(entry: Any) -> str:
    """The name of a contestant, plugin or data set of a plan."""
    if isinstance(entry, Mapping):
        return str(entry.get("name") or entry.get("plugin") or "")
    return str(entry)


def read_object(path: Path) -> dict[str, Any] | None:
    """A JSON object; None if there is no file. Raises `UserError` naming a damaged one."""
    if not path.exists():
        return None
    try:
        found = parse_json(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: damaged JSON ({error}): run the same command again to rewrite it") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds a {type(found).__name__}, expected an object; run the same command again")
    return found


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The rows of a log and the number of unreadable lines: a killed run may leave a partial line."""
    if not path.exists():
        return [], 0
    rows, unreadable = [], 0
    for line in path.read_text(errors="replace").splitlines():
        try:
            row = parse_json(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            unreadable += bool(line.strip())
    return rows, unreadable
