"""The run in plain sentences: who is best at what, what cannot be told apart, and what to distrust."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from medlord_bench.results.glance import Column, Glance, Line
from medlord_bench.results.run_results import RunResults
from medlord_bench.results.words import listing, number, span

from .warned import Warned

MOST = 4  # sentences of one kind
FEW = 30  # samples below which intervals are wide


@dataclass(frozen=True)
class Conclusions:
    """Sentences. found: what the numbers say. doubts: what to distrust."""

    found: Sequence[str]
    doubts: Sequence[str]


def conclusions(run: RunResults, glance: Glance, warnings: Sequence[Warned]) -> Conclusions:
    """From the paired tests and the warnings alone; nothing is called better without a test."""
    ranked = set(run.ranked)
    lines = [line for line in glance.lines if line.contestant in ranked]
    best: dict[str, list[str]] = defaultdict(list)
    tied: dict[tuple[str, ...], list[tuple[str, tuple[int, int] | None]]] = defaultdict(list)
    for place, column in enumerate(glance.columns):
        marked = {line.contestant: line.cells[place].place for line in lines if line.cells[place].place.word}
        names = tuple(marked)
        if len(names) == 1:
            best[names[0]].append(_title(column))
        elif names:
            needed = [one.needed for one in marked.values() if one.needed]
            ends = (min(low for low, _ in needed), max(high for _, high in needed)) if needed else None
            tied[names].append((_title(column), ends))
    failed = _failed(run)
    found = []
    for name, titles in best.items():
        count, n = failed.get(name, (0, 1))
        but = f", but {count} of {n} of its samples failed" if 2 * count >= n else ""
        found.append(f"{name} is best in {listing(titles)}{but}.")
    found += [_tie(names, told) for names, told in tied.items()]
    if not found:
        found = _alone(lines, glance.columns)
    return Conclusions(_few(found), _few(_doubts(run, warnings)))


def _title(column: Column) -> str:
    return column.title + (f" ({column.reference})" if column.reference else "")


def _tie(names: Sequence[str], told: Sequence[tuple[str, tuple[int, int] | None]]) -> str:
    ends = [one for _, one in told if one]
    more = f"; {span((min(a for a, _ in ends), max(b for _, b in ends)))} cases would" if ends else ""
    return f"The data cannot tell {listing(names)} apart in {listing([title for title, _ in told])}{more}."


def _alone(lines: Sequence[Line], columns: Sequence[Column]) -> list[str]:
    """For a run whose contestants were not compared: each one against real volumes."""
    found = []
    for line in lines[:MOST]:
        parts = []
        for column, cell in zip(columns, line.cells, strict=True):
            if cell.score is not None and cell.score.value is not None and cell.score.floor is not None:
                parts.append(f"{_title(column)} {number(cell.score.value)} (real volumes: {number(cell.score.floor)})")
        if parts:
            found.append(f"{line.contestant}: {listing(parts)}.")
    return found


def _doubts(run: RunResults, warnings: Sequence[Warned]) -> list[str]:
    ranked = set(run.ranked) or set(run.contestants)
    doubts = []
    by_contestant: dict[str, list[str]] = defaultdict(list)
    for one in warnings:
        if one.contestant in ranked:
            by_contestant[one.contestant] += one.metrics
    if by_contestant:
        told = [f"{name} ({listing(list(dict.fromkeys(metrics)))})" for name, metrics in by_contestant.items()]
        doubts.append(f"Warnings on {listing(told)}: see below.")
    seen = run.results.seen_in_pretraining if run.results else {}
    doubts += [f"{name} was seen in pretraining: {str(text).rstrip('.')}." for name, text in seen.items()]
    doubts += [
        f"{count} of {n} samples of {name} failed." for name, (count, n) in _failed(run).items() if name in ranked
    ]
    sizes = [score.n for score in run.scores if score.status == "ok" and score.generator in ranked and score.n]
    if sizes and min(sizes) < FEW:
        doubts.append(
            f"Some numbers rest on {min(sizes)} cases: intervals are wide, and small differences stay hidden."
        )
    absent = dict.fromkeys(
        score.metric for score in run.scores if score.status == "not_run" and score.generator in ranked
    )
    measured = {score.metric for score in run.scores if score.status == "ok"}
    never = [metric for metric in absent if metric not in measured]
    if never:
        doubts.append(f"Not run for any contestant: {listing(never)}.")
    if run.reference:
        doubts.append(
            "The real volumes are known by a reference file of aggregate statistics: what needs cases was not run, and no "
            "interval has their variation."
        )
    if run.calibration is None:
        doubts.append("The bench was not calibrated in this store.")
    elif not run.calibration.trusted:
        doubts.append("The calibration of the bench failed: its numbers cannot be trusted.")
    elif run.calibration.stale:
        doubts.append("The bench has changed since its calibration.")
    return doubts


def _failed(run: RunResults) -> dict[str, tuple[int, int]]:
    """Contestant -> (failed samples, samples), of those that have any."""
    others = {name for name, one in run.quantities.items() if one.cases_of in ("conditional", "reconstructions")}
    protocols = {score.protocol for score in run.scores if score.metric in others}
    failed = [score for score in run.scores if score.failed and score.protocol not in protocols]
    return {score.generator: (score.failed, score.n) for score in failed}


def _few(sentences: Sequence[str]) -> list[str]:
    left = len(sentences) - MOST
    return [*sentences[:MOST], *([f"{left} more below."] if left > 0 else [])]
