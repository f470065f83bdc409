"""Scores to tables: one per protocol and data set, never two protocols in one."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from medlord_bench.errors import UserError
from medlord_bench.results import ResultsFile, Score

REFERENCES = ("test", "train", "val")  # test first: the train reference is there to unmask copying


@dataclass(frozen=True)
class Bar:
    """A value on the common scale of its metric: positions in per cent from the left."""

    value: float
    low: float | None
    high: float | None
    floor: float | None


@dataclass(frozen=True)
class Row:
    score: Score
    bar: Bar | None


@dataclass(frozen=True)
class Group:
    """The rows of one metric. interval: how all of its intervals were made, empty where rows differ."""

    metric: str
    unit: str
    better: str
    interval: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Table:
    dataset: str
    protocol: str
    groups: Sequence[Group]


def tables(results: ResultsFile) -> list[Table]:
    """One table per data set and protocol, in order of appearance.

    Raises `UserError` where one metric was measured under two protocols, naming the first field that differs.
    """
    _refuse_mixed(results)
    found: dict[tuple[str, str], dict[str, list[Score]]] = defaultdict(lambda: defaultdict(list))
    for score in results.scores:
        found[score.dataset, score.protocol][score.metric].append(score)
    return [
        Table(dataset, protocol, [_group(metric, scores) for metric, scores in metrics.items()])
        for (dataset, protocol), metrics in found.items()
    ]


def _refuse_mixed(results: ResultsFile) -> None:
    """Values that a reader would compare must have one protocol."""
    protocols: dict[tuple[str, str, str, str], dict[str, str]] = defaultdict(dict)
    for score in results.scores:
        if score.status == "ok":
            key = (score.dataset, score.metric, score.region, score.reference)
            protocols[key].setdefault(score.protocol, score.generator)
    for (dataset, metric, _, _), used in protocols.items():
        for (first, its), (second, other) in pairwise(used.items()):
            field = differing_field(results.protocols.get(first, {}), results.protocols.get(second, {}))
            raise UserError(
                f"results/scores.json: {metric} on {dataset} was measured under {first} for {its} and under {second} "
                f"for {other}, which differ in {field}; they cannot stand in one table: run both again with one "
                "configuration (finished samples are used again, only the metric is computed anew)"
            )


def differing_field(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """The first field, dotted, in which two protocols differ, with both values."""
    for name, a, b in _differences(first, second, ""):
        return f"{name} ({a!r} and {b!r})"
    return "a field that the file does not list"


def _differences(a: Any, b: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted({*a, *b}):
            yield from _differences(a.get(key, "absent"), b.get(key, "absent"), f"{name}.{key}" if name else key)
    elif a != b:
        yield name, a, b


def _group(metric: str, scores: Sequence[Score]) -> Group:
    ordered = sorted(scores, key=_order(scores))
    scale = _scale(ordered)
    intervals = {score.interval for score in ordered if score.low is not None}
    return Group(
        metric=metric,
        unit=_common(score.unit for score in ordered),
        better=_common(score.better for score in ordered),
        interval=intervals.pop() if len(intervals) == 1 else "",
        rows=[Row(score, _bar(score, scale)) for score in ordered],
    )


def _order(scores: Sequence[Score]) -> Any:
    """Region by region, contestant by contestant as first seen, test reference beside train."""
    regions = list(dict.fromkeys(score.region for score in scores))
    contestants = list(dict.fromkeys(score.generator for score in scores))

    def key(score: Score) -> tuple[int, int, int]:
        reference = REFERENCES.index(score.reference) if score.reference in REFERENCES else len(REFERENCES)
        return regions.index(score.region), contestants.index(score.generator), reference

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
