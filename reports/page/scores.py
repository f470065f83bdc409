"""Scores to tables: one per protocol and data set, never two protocols in one."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from medlord_bench.contracts.metrics import Quantity
from medlord_bench.contracts.results import CaseRow, ResultsFile, Score
from medlord_bench.errors import UserError
from medlord_bench.results.diff import differences
from medlord_bench.results.glance import Glance, Quantities, order_of, overview

from .matrix import PLANES, Matrix, is_regional, matrices

MAX_INLINE_CHARACTERS = 40  # a longer remark is not shown in its row
MAX_NAMED_REGIONS = 2  # regions of a metric that are named each with its metric
MANY, CROWD = 40, 6  # rows, and contestants, of a table beyond which it is folded under an overview


@dataclass(frozen=True)
class Bar:
    """A value on the common scale of its metric: positions in per cent from the left."""

    value: float
    low: float | None
    high: float | None
    floor: float | None


@dataclass(frozen=True)
class Row:
    """marks: numbers of its notes. remark: concerns this row alone and is short enough to be shown in it."""

    score: Score
    bar: Bar | None
    marks: Sequence[int]
    remark: str


@dataclass(frozen=True)
class Group:
    """The rows of one metric. interval: how all of its intervals were made, empty if rows differ."""

    metric: str
    meaning: str
    unit: str
    better: str
    interval: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class NotRun:
    """The quantities and contestants that were not computed for one reason."""

    contestants: Sequence[str]
    quantities: Sequence[str]
    reason: str


@dataclass(frozen=True)
class Part:
    """Rows with their own notes. every: what holds for each row. notes: numbered from 1 by `Row.marks`."""

    groups: Sequence[Group]
    not_run: Sequence[NotRun]
    every: Sequence[str]
    notes: Sequence[str]
    rows: int


@dataclass(frozen=True)
class Table:
    """main: the quantities to read first; overview: their values alone, if they are so many that they are folded.
    matrices: regions down, contestants across. more: the rest, e.g. plane by plane, and every region with all
    details of its number, named by `more_title`."""

    dataset: str
    protocol: str
    main: Part
    overview: Glance | None
    matrices: Sequence[Matrix]
    more: Part | None
    more_title: str

    @property
    def names(self) -> list[str]:
        """The quantities, in order."""
        parts = (self.main, *([self.more] if self.more else []))
        named = [group.metric for part in parts for group in part.groups] + [one.metric for one in self.matrices]
        missed = [one.quantities[0] for part in parts for one in part.not_run]
        return list(dict.fromkeys(named)) or list(dict.fromkeys(missed))


def tables(results: ResultsFile, rows: Sequence[CaseRow] = ()) -> list[Table]:
    """One table per data set and protocol, in order of appearance. rows: of cases, for the values of real volumes.

    Raises `UserError` if contestants were measured under different protocols, naming the first field that differs.
    """
    _refuse_mixed(results)
    quantities = {one.name: one for one in results.quantities}
    found: dict[tuple[str, str], list[Score]] = defaultdict(list)
    for score in results.scores:
        found[score.dataset, score.protocol].append(score)
    return [
        _table(dataset, protocol, scores, rows_of(results.scores, rows, {s.metric for s in scores}), quantities)
        for (dataset, protocol), scores in found.items()
    ]


def rows_of(scores: Sequence[Score], rows: Sequence[CaseRow], metrics: Collection[str]) -> list[CaseRow]:
    """The case rows of metrics with one protocol: rows do not name it, so rows of several cannot be separated."""
    protocols: dict[str, set[str]] = defaultdict(set)
    for score in scores:
        protocols[score.metric].add(score.protocol)
    one = {metric for metric in metrics if len(protocols[metric]) == 1}
    return [row for row in rows if row.metric in one]


def _table(
    dataset: str, protocol: str, scores: Sequence[Score], rows: Sequence[CaseRow], quantities: Quantities
) -> Table:
    first = [score for score in scores if not _is_further(score, quantities)]
    rest = [score for score in scores if _is_further(score, quantities)]
    regions = matrices(scores, rows, quantities)
    if not any(score.status == "ok" for score in first) and not regions:  # nothing comes before the rest
        first, rest = list(scores), []
    told = ["plane by plane"] * any(map(_is_plane, rest)) + ["every region in full"] * any(map(is_regional, rest))
    told += dict.fromkeys(filter(None, (_folded(score, quantities) for score in rest)))
    main = _part(first, quantities)
    crowded = main.rows > MANY or len({score.generator for score in first if score.status == "ok"}) > CROWD
    short = overview(first, quantities) if crowded else None
    return Table(
        dataset, protocol, main, short, regions, _part(rest, quantities) if rest else None, ", and ".join(told)
    )


def _is_further(score: Score, quantities: Quantities) -> bool:
    """Whether a score is one of many that detail another score of the whole."""
    return bool(_folded(score, quantities)) or _is_plane(score) or (is_regional(score) and score.status == "ok")


def _is_plane(score: Score) -> bool:
    return score.region in PLANES


def _folded(score: Score, quantities: Quantities) -> str:
    """Why the rows of its quantity fold away; empty if they do not."""
    quantity = quantities.get(score.metric)
    return quantity.folded if quantity else ""


def _part(scores: Sequence[Score], quantities: Quantities) -> Part:
    measured: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        if score.status == "ok":
            measured[score.metric].append(score)
    by_metric = {metric: sorted(rows, key=_order(rows)) for metric, rows in measured.items()}
    remarks = [_remarks(score) for rows in by_metric.values() for score in rows]
    counts = Counter(remark for row in remarks for remark in row)
    every = [remark for remark, count in counts.items() if count == len(remarks) > 1]
    notes = [r for r, count in counts.items() if r not in every and (count > 1 or len(r) > MAX_INLINE_CHARACTERS)]
    groups = [_group(metric, quantities.get(metric), rows, every, notes) for metric, rows in by_metric.items()]
    return Part(groups, _not_run(scores), every, notes, len(remarks))


def _remarks(score: Score) -> list[str]:
    """The notes of a row, each part once."""
    limits = {"floor": score.floor_note, "ceiling": score.ceiling_note}
    beside = [f"{name}: {note}" for name, note in limits.items() if note]
    return list(dict.fromkeys([*(note.text for note in score.notes), *beside]))


def _not_run(scores: Sequence[Score]) -> list[NotRun]:
    """Values that were not computed: one entry per reason and the quantities that share it."""
    found: dict[tuple[str, str], list[Score]] = defaultdict(list)
    for score in scores:
        if score.status == "not_run":
            reason = "; ".join(filter(None, (score.reason or "no reason was given", score.note_text)))
            found[score.generator, reason].append(score)
    merged: dict[tuple[tuple[str, ...], str], list[str]] = defaultdict(list)
    for (name, reason), members in found.items():
        merged[_quantities(members), reason].append(name)
    return [NotRun(contestants, names, reason) for (names, reason), contestants in merged.items()]


def _quantities(scores: Sequence[Score]) -> tuple[str, ...]:
    """Metrics with their regions; a metric of many regions once, before all of them."""
    regions: dict[str, list[str]] = defaultdict(list)
    for score in scores:
        if score.region not in regions[score.metric]:
            regions[score.metric].append(score.region)
    names: list[str] = []
    for metric, own in regions.items():
        if len(own) > MAX_NAMED_REGIONS and all(own):
            names.append(f"{metric} ({', '.join(own)})")
        else:
            names += [" ".join(filter(None, (metric, region))) for region in own]
    return tuple(names)


def _refuse_mixed(results: ResultsFile) -> None:
    """Contestants that a reader would compare must share a protocol; one metric may have several for all."""
    measured: dict[tuple[str, str, str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for score in results.scores:
        if score.status == "ok":
            key = (score.dataset, score.metric, score.region, score.reference)
            measured[key][score.generator].add(score.protocol)
    for (dataset, metric, _, _), by_generator in measured.items():
        for (its, used), (other, theirs) in combinations(by_generator.items(), 2):
            if used & theirs:
                continue
            first, second = min(used), min(theirs)
            field = differing_field(results.protocols.get(first, {}), results.protocols.get(second, {}))
            raise UserError(
                f"results/scores.json: {metric} on {dataset} was measured under {first} for {its} and under {second} "
                f"for {other}, which differ in {field}; they cannot share a table: run both again with one "
                "configuration (finished samples are reused, only the metric is recomputed)"
            )


def differing_field(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """The first field, dotted, in which two protocols differ, with both values."""
    for name, a, b in differences(first, second):
        return f"{name} ({a} and {b})"
    return "a field that the file does not list"


def _group(
    metric: str, about: Quantity | None, ordered: Sequence[Score], every: Sequence[str], notes: Sequence[str]
) -> Group:
    scale = _scale(ordered)
    intervals = {score.interval for score in ordered if score.low is not None}
    return Group(
        metric=metric,
        meaning=about.meaning if about else "",
        unit=_common(score.unit for score in ordered),
        better=_common(score.better for score in ordered),
        interval=intervals.pop() if len(intervals) == 1 else "",
        rows=[_row(score, scale, every, notes) for score in ordered],
    )


def _row(score: Score, scale: tuple[float, float] | None, every: Sequence[str], notes: Sequence[str]) -> Row:
    remarks = [remark for remark in _remarks(score) if remark not in every]
    marks = [notes.index(remark) + 1 for remark in remarks if remark in notes]
    return Row(score, _bar(score, scale), marks, "; ".join(remark for remark in remarks if remark not in notes))


def _order(scores: Sequence[Score]) -> Any:
    """Contestants beside each other for each region and reference, the test reference first."""
    regions = list(dict.fromkeys(score.region for score in scores))
    contestants = list(dict.fromkeys(score.generator for score in scores))

    def key(score: Score) -> tuple[int, int, int]:
        return regions.index(score.region), order_of(score.reference), contestants.index(score.generator)

    return key


def _common(values: Iterator[str]) -> str:
    found = {value for value in values if value}
    return found.pop() if len(found) == 1 else ""


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _scale(scores: Sequence[Score]) -> tuple[float, float] | None:
    numbers = [
        number
        for score in scores
        if _finite(score.value)
        for number in (score.value, score.low, score.high, score.floor)
        if number is not None and math.isfinite(number)
    ]
    return (min(numbers), max(numbers)) if numbers and max(numbers) > min(numbers) else None


def _bar(score: Score, scale: tuple[float, float] | None) -> Bar | None:
    if scale is None or score.value is None or not _finite(score.value):
        return None
    low, high = scale

    def place(value: float | None) -> float | None:
        return None if value is None or not math.isfinite(value) else 3 + 94 * (value - low) / (high - low)

    return Bar(place(score.value) or 0.0, place(score.low), place(score.high), place(score.floor))
