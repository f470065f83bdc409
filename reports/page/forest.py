"""The overview as a forest plot: a row per contestant, a column per headline quantity, one axis for each column."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from medlord_bench.contracts.results import Score
from medlord_bench.results.glance import Column, Glance, Line, Standing
from medlord_bench.results.words import aligned, number, rounded, span

from .words import carried

NAMED_REGIONS = 2  # missing regions that a cell names
CENTRE = 74.0  # per cent of a row's height at which values are drawn, below their text
MARGIN = 6.0  # per cent of the axis that is free at either end


@dataclass(frozen=True)
class Mark:
    """A cell. x, low, high: positions in per cent. beyond: -1 or 1 if the value lies left or right of the axis.

    join: ends of the line that joins the contestants tied with best, in per cent of the row's height; None without.
    """

    text: str
    interval: str = ""
    title: str = ""
    word: str = ""
    needed: str = ""
    warned: bool = False
    x: float | None = None
    low: float | None = None
    high: float | None = None
    beyond: int = 0
    join: tuple[float, float] | None = None


@dataclass(frozen=True)
class Axis:
    """A column. band: where real volumes score, from the floor or ceiling to the ideal end, in per cent. joined: position
    of the line that joins ties."""

    column: Column
    title: str
    limits: str
    band: tuple[float, float] | None
    joined: float | None
    drawn: bool


@dataclass(frozen=True)
class Row:
    """remark: what to know of the contestant, e.g. that its weights were trained on this data set."""

    contestant: str
    control: bool
    remark: str
    marks: Sequence[Mark]


@dataclass(frozen=True)
class Forest:
    axes: Sequence[Axis]
    rows: Sequence[Row]


def forest(glance: Glance, controls: Iterable[str], seen: Mapping[str, str] = MappingProxyType({})) -> Forest:
    """Contestants first, controls below them; an axis spans the values of the contestants, and a control beyond it is an
    arrow at its end. seen: contestant -> a sentence, if it was seen in pretraining."""
    left_out = set(controls)
    lines = sorted(glance.lines, key=lambda line: line.contestant in left_out)
    ranked = [line for line in lines if line.contestant not in left_out] or lines
    axes, columns = [], []
    for place, column in enumerate(glance.columns):
        axis, marks = _column(column, place, lines, ranked)
        axes.append(axis)
        columns.append(marks)
    rows = [
        Row(
            line.contestant,
            line.contestant in left_out,
            seen.get(line.contestant, ""),
            [column[number] for column in columns],
        )
        for number, line in enumerate(lines)
    ]
    return Forest(axes, rows)


def _column(column: Column, place: int, lines: Sequence[Line], ranked: Sequence[Line]) -> tuple[Axis, list[Mark]]:
    cells = [line.cells[place] for line in lines]
    title = " ".join(filter(None, (column.title, column.region, column.reference)))
    if any(cell.missing is not None for cell in cells):
        return Axis(column, title, "", None, None, False), [_missing(cell) for cell in cells]
    scale = _scale([line.cells[place].score for line in ranked], column)
    known = {name: value for name in ("floor", "ceiling") if (value := getattr(column, name)) is not None}
    values = [*(cell.score.value if cell.score else None for cell in cells), *known.values()]
    texts = aligned(values) if column.decimals is None else [rounded(value, column.decimals) for value in values]
    marks = [_mark(cell, text, scale) for cell, text in zip(cells, texts, strict=False)]
    tied = [row for row, cell in enumerate(cells) if cell.place.word == "tied with best"]
    joined = next((marks[row].x for row in tied), None)
    if len(tied) > 1 and joined is not None:
        for row in range(tied[0], tied[-1] + 1):
            ends = (CENTRE if row == tied[0] else 0.0, CENTRE if row == tied[-1] else 100.0)
            marks[row] = replace(marks[row], join=ends)
    limits = " · ".join(f"{name} {text}" for name, text in zip(known, texts[len(cells) :], strict=True))
    return Axis(column, title, limits, _band(column, scale), joined, scale is not None), marks


def _scale(scores: Sequence[Score | None], column: Column) -> tuple[float, float] | None:
    known = [
        value
        for score in scores
        if score is not None
        for value in (score.value, score.low, score.high)
        if value is not None and math.isfinite(value)
    ]
    known += [value for value in (column.floor, column.ceiling) if value is not None and known]
    return (min(known), max(known)) if known and max(known) > min(known) else None


def _position(value: float | None, scale: tuple[float, float] | None) -> float | None:
    if value is None or scale is None or not math.isfinite(value):
        return None
    place = MARGIN + (100 - 2 * MARGIN) * (value - scale[0]) / (scale[1] - scale[0])
    return round(min(max(place, 0.0), 100.0), 2)


def _band(column: Column, scale: tuple[float, float] | None) -> tuple[float, float] | None:
    limit = column.floor if column.floor is not None else column.ceiling
    place = _position(limit, scale)
    if place is None or not column.better:
        return None
    return (0.0, place) if column.better == "lower" else (place, 100.0)


def _mark(cell: Standing, text: str, scale: tuple[float, float] | None) -> Mark:
    score = cell.score
    if score is None or score.value is None:
        return Mark("not run", title=cell.reason)
    beyond = 0
    if scale is not None:
        beyond = -1 if score.value < scale[0] else 1 if score.value > scale[1] else 0
    interval = ""
    if score.low is not None and score.high is not None:
        interval = f"{number(score.low)} to {number(score.high)}"
    failed = f"{score.failed} of {score.n} failed" if score.failed else ""
    return Mark(
        text=text,
        interval="; ".join(filter(None, (interval, failed))),
        title=carried(score),
        word={"tied with best": "tied"}.get(cell.place.word, cell.place.word),
        needed=f"n of {span(cell.place.needed)} needed to decide" if cell.place.needed else "",
        warned=bool(score.warning),
        x=_position(score.value, scale),
        low=None if beyond else _position(score.low, scale),
        high=None if beyond else _position(score.high, scale),
        beyond=beyond,
    )


def _missing(cell: Standing) -> Mark:
    """Regions that samples lack more often than real volumes do, in few words."""
    if cell.missing is None:
        return Mark("not run", title=cell.reason)
    if not cell.missing:
        return Mark("none")
    shares = [one.value for one in cell.missing if one.value is not None]
    told = "; ".join(f"{one.region} {one.value:.0%}: {carried(one)}" for one in cell.missing)
    warned = any(one.warning for one in cell.missing)
    if len(shares) > 1 and min(shares) == 1.0:
        return Mark(f"{len(shares)} of {cell.regions} in all samples", title=told, warned=warned)
    worst = sorted(cell.missing, key=lambda one: -(one.value or 0))
    named = [f"{one.region.replace('_', ' ')} {one.value:.0%}" for one in worst[:NAMED_REGIONS]]
    more = len(worst) - len(named)
    return Mark(", ".join(named) + (f", {more} more" if more else ""), title=told, warned=warned)
