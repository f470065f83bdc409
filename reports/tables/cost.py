"""The table of memory and speed: predicted and measured peaks, seconds a volume, device time of training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from medlord_bench.results.step_records import StepRecord
from medlord_bench.results.words import decimals_of, fixed

from .cells import Facts, label_marks
from .grid import Cell, Column, Footnotes, Panel, Row

NAME = "memory_speed"
PHASES = (("training", ("weights", "select")), ("sampling", ("samples", "conditional")))
GIB, SECONDS = 2, "s"
Record = dict[str, object]


def predicted(steps: Iterable[StepRecord]) -> float | None:
    return max((step.memory.predicted for step in steps if step.memory.predicted is not None), default=None)


def measured(steps: Iterable[StepRecord]) -> float | None:
    """The highest peak: of the card, else of the allocator, else of the process."""
    peaks = []
    for step in steps:
        memory = step.memory
        known = (memory.device, memory.reserved, memory.allocated, step.peak_gib, memory.resident, memory.programs)
        peaks += [value for value in known if value is not None][:1]
    return max(peaks, default=None)


def evidence(steps: Iterable[StepRecord]) -> str:
    return ", ".join(dict.fromkeys(step.memory.evidence for step in steps if step.memory.evidence))


def seconds_a_volume(steps: Iterable[StepRecord]) -> float | None:
    """Of the samples of this run; None if an earlier run made them."""
    timed = [step for step in steps if step.kind == "samples" and step.seconds is not None and step.items]
    items = sum(step.items or 0 for step in timed)
    return sum(step.seconds or 0.0 for step in timed) / items if items else None


def records(facts: Facts) -> list[Record]:
    """One row for each number."""
    found = []
    for name in facts.run.contestants:
        for phase, kinds in PHASES:
            steps = _steps(name, kinds, facts)
            common: Record = {"contestant": name, "control": name in facts.controls, "phase": phase}
            common |= {
                "evidence": evidence(steps),
                "device": ", ".join(dict.fromkeys(s.device for s in steps if s.device)),
            }
            for quantity, value in (("predicted peak", predicted(steps)), ("measured peak", measured(steps))):
                found.append({**common, "quantity": quantity, "value": value, "unit": "GiB"})
            if phase == "sampling":
                speed = seconds_a_volume(steps)
                found.append({**common, "quantity": "time a volume", "value": speed, "unit": SECONDS})
            else:
                found.append({**common, "quantity": "device time", "value": _trained(name, facts), "unit": SECONDS})
    return [
        {**one, "seen_in_pretraining": facts.seen.get(str(one["contestant"]), "")}
        for one in found
        if one["value"] is not None
    ]


def panel(facts: Facts) -> Panel:
    notes = Footnotes()
    names = sorted(facts.run.contestants, key=lambda name: name in facts.controls)
    known = records(facts)
    columns = [
        Column((phase.capitalize(), f"{quantity} ({unit})"))
        for phase, quantity, unit in (
            ("training", "predicted peak", "GiB"),
            ("training", "measured peak", "GiB"),
            ("training", "device time", SECONDS),
            ("sampling", "predicted peak", "GiB"),
            ("sampling", "measured peak", "GiB"),
            ("sampling", "time a volume", SECONDS),
        )
    ]
    cells = {title: _column(title, known, names) for title in (column.title for column in columns)}
    shown = [column for column in columns if any(cells[column.title].values())]
    sections: list[list[Row]] = [[], []]
    for name in names:
        own = [Cell(cells[column.title].get(name, "")) for column in shown]
        if not any(one.value for one in own):
            continue
        adopted = any(stage.adopted for one in facts.run.efforts if one.contestant == name for stage in one.stages)
        marks = [*label_marks(name, facts, notes)]
        if adopted:
            marks.append(notes.mark("weights were loaded and not trained here"))
        kinds = tuple(kind for _, kinds in PHASES for kind in kinds)
        told = Cell(evidence(_steps(name, kinds, facts)).replace("-", " ").replace("cpu", "CPU"))
        control = name in facts.controls
        sections[control].append(Row((name,), [*own, told], marks, control))
    caption = (
        "Peak memory and time of each contestant. Predicted peaks are computed before any work. Measured peaks are of the "
        "card, or of the process on a CPU. Device time is of all training stages, over all sessions."
    )
    return Panel(NAME, caption, ("Contestant",), [*shown, Column(("Evidence",), numeric=False)], sections, notes.notes)


def _column(title: str, known: Sequence[Record], names: Sequence[str]) -> dict[str, str]:
    own = {
        str(one["contestant"]): float(str(one["value"]))
        for one in known
        if f"{str(one['phase']).capitalize()}, {one['quantity']} ({one['unit']})" == title
    }
    digits = GIB if title.endswith("(GiB)") else min(decimals_of(list(own.values()), 3), 3)
    return {name: fixed(own[name], digits) for name in names if name in own}


def _steps(contestant: str, kinds: Sequence[str], facts: Facts) -> list[StepRecord]:
    """The steps of a contestant; training steps only if something was trained or loaded in them."""
    efforts = [stage for one in facts.run.efforts if one.contestant == contestant for stage in one.stages]
    if "weights" in kinds and not any(stage.steps is not None or stage.adopted for stage in efforts):
        kinds = [kind for kind in kinds if kind not in ("weights", "select")]
    return [step for step in facts.run.steps if step.contestant == contestant and step.kind in kinds]


def _trained(contestant: str, facts: Facts) -> float | None:
    known = [
        stage.seconds
        for one in facts.run.efforts
        if one.contestant == contestant
        for stage in one.stages
        if stage.seconds is not None
    ]
    return sum(known) if known else None
