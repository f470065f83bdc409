"""The overview for print: a row per contestant, an axis per headline quantity, with interval, floor and ties."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medlord_bench.contracts.results import Score
from medlord_bench.drawing.files import Drawn, Value
from medlord_bench.drawing.style import (
    BAND,
    COLOURS,
    FAINT,
    GREY,
    HEIGHT_MM,
    SMALL,
    footnote,
    sheet,
    shorten,
)
from medlord_bench.results.glance import glance
from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import RunResults
from medlord_bench.results.words import aligned

from .volumes import ordered

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PER_ROW = 5  # quantities beside each other
BEST, TIED, OTHER = "best", "tied with best", ""
Key = tuple[str, str, str, str]  # metric, reference, protocol, data set
COLUMNS = (
    "contestant", "control", "metric", "reference", "protocol", "value", "low", "high", "floor", "ceiling", "unit",
    "better", "n", "place",
)  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A quantity under one protocol. regions: contestant -> (regions missing, regions looked at), of a quantity that is
    shown as the regions it is of."""

    title: str
    key: Key
    better: str
    scores: dict[str, Score]
    places: dict[str, str]
    regions: dict[str, tuple[int, int]]


def forest(run: RunResults, options: ReportOptions) -> Iterator[Drawn]:
    """Pages of all headline quantities that have a value."""
    controls = set(run.results.controls) if run.results else set()
    found = [column for column in _columns(run, controls) if column.scores or column.regions]
    names = [name for name in ordered(run) if any(name in column.scores or name in column.regions for column in found)]
    if not found or not names:
        return
    per_page = PER_ROW * max(1, int((HEIGHT_MM - 10) / _row_mm(names)))
    for start in range(0, len(found), per_page):
        name = "forest" if start == 0 else f"forest-{start // per_page + 1}"
        yield _page(name, found[start : start + per_page], names, controls)


def _row_mm(names: Sequence[str]) -> float:
    """Height of a row of axes."""
    return 13 + 6.2 * len(names)


def _page(name: str, found: Sequence[Column], names: Sequence[str], controls: Collection[str]) -> Drawn:
    lines = -(-len(found) // PER_ROW)
    figure = sheet(180 if len(found) > 3 else 122, 9 + lines * _row_mm(names))
    across = min(len(found), PER_ROW)
    axes = figure.subplots(lines, across, squeeze=False).ravel()
    for place, (column, one) in enumerate(zip(found, axes, strict=False)):
        _draw(one, column, names, controls)
        texts = [shorten(name, 26) for name in names] if place % across == 0 else [""] * len(names)
        one.set_yticks(range(len(names)), texts, fontsize=SMALL)
    for one in axes[len(found) :]:
        one.set_axis_off()
    footnote(
        figure,
        "Filled: no other contestant is better in the paired tests; joined: tied. Open: beaten, or not compared. Bars: "
        "intervals. Grey: where real volumes score (floor or ceiling). Below the line: controls, which are not ranked; an "
        "arrow is a value beyond the axis.",
    )
    return Drawn(name, figure, COLUMNS, [row for column in found for row in _rows(column, names, controls)])


def _columns(run: RunResults, controls: Collection[str]) -> Iterator[Column]:
    """The columns of the overview, in the order that the quantities declare."""
    found = glance(run.scores, run.comparisons.comparisons, run.quantities, controls)
    for place, column in enumerate(found.columns):
        cells = {line.contestant: line.cells[place] for line in found.lines}
        title = " ".join(filter(None, (column.title, column.reference)))
        yield Column(
            title,
            (column.metric, column.reference, column.protocol, column.dataset),
            column.better,
            {name: cell.score for name, cell in cells.items() if cell.score and cell.score.value is not None},
            {name: cell.place.word for name, cell in cells.items()},
            {name: (len(cell.missing), cell.regions) for name, cell in cells.items() if cell.missing is not None},
        )


def _rows(column: Column, names: Sequence[str], controls: Collection[str]) -> Iterator[list[Value]]:
    metric, reference, protocol, _ = column.key
    for name in names:
        control = "yes" if name in controls else ""
        one = column.scores.get(name)
        if one is not None:
            numbers: list[Value] = [one.value, one.low, one.high, one.floor, one.ceiling]
            yield [
                name,
                control,
                metric,
                reference,
                protocol,
                *numbers,
                one.unit,
                one.better,
                one.n,
                column.places.get(name, ""),
            ]
        elif name in column.regions:
            missing, of = column.regions[name]
            yield [
                name,
                control,
                metric,
                reference,
                protocol,
                missing,
                None,
                None,
                None,
                None,
                f"regions of {of}",
                column.better,
                None,
                "",
            ]


def _draw(axes: Axes, column: Column, names: Sequence[str], controls: Collection[str]) -> None:
    axes.set_ylim(len(names) - 0.4, -0.75)
    better = {"lower": "lower is better", "higher": "higher is better"}.get(column.better, "")
    units = {one.unit for one in column.scores.values() if one.unit}
    axes.set_title(shorten(column.title, 24) + (f" ({shorten(units.pop(), 8)})" if len(units) == 1 else ""))
    axes.set_xlabel(better, fontsize=SMALL)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    first = next((place for place, name in enumerate(names) if name in controls), None)
    if first:
        axes.axhline(first - 0.65, color=FAINT, lw=0.5)
    if column.regions:
        _counts(axes, column, names, controls)
        return
    low, high = _limits(column, [name for name in names if name not in controls] or names)
    reach = (high - low) or abs(high) or 1.0
    axes.set_xlim(low - 0.1 * reach, high + 0.1 * reach)
    _band(axes, column)
    texts = dict(zip(column.scores, aligned([one.value for one in column.scores.values()], 3), strict=True))
    for place, name in enumerate(names):
        if name in column.scores:
            _mark(axes, column.scores[name], place, column.places.get(name, OTHER), name in controls, (low, high))
            _write(axes, column.scores[name], place, texts[name], (low, high))
        else:
            axes.text(
                0.5,
                place,
                "not run",
                transform=axes.get_yaxis_transform(),
                ha="center",
                va="center",
                fontsize=SMALL,
                color=GREY,
            )
    tied = [place for place, name in enumerate(names) if column.places.get(name) == TIED]
    if len(tied) > 1:
        axes.plot([0.015] * 2, [tied[0], tied[-1]], transform=axes.get_yaxis_transform(), color=COLOURS[0], lw=1.4)
    axes.locator_params(axis="x", nbins=3)


def _counts(axes: Axes, column: Column, names: Sequence[str], controls: Collection[str]) -> None:
    most = max(of for _, of in column.regions.values())
    axes.set_xlim(0, most)
    for place, name in enumerate(names):
        if name in column.regions:
            missing, of = column.regions[name]
            axes.barh(place, missing, height=0.28, color=GREY if name in controls else COLOURS[0])
            axes.text(0, place - 0.42, f"{missing} of {of}" if missing else "none", fontsize=SMALL, va="center")
    axes.locator_params(axis="x", nbins=3, integer=True)


def _limits(column: Column, names: Sequence[str]) -> tuple[float, float]:
    own = [one for name, one in column.scores.items() if name in names] or list(column.scores.values())
    values = [v for one in own for v in (one.value, one.low, one.high, one.floor, one.ceiling) if v is not None]
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    return min(finite), max(finite)


def _band(axes: Axes, column: Column) -> None:
    """From the floor or ceiling, if all contestants have the same, to the ideal end."""
    for name in ("floor", "ceiling"):
        known = {getattr(one, name) for one in column.scores.values()} - {None}
        if len(known) == 1 and column.better:
            limit, ends = known.pop(), axes.get_xlim()
            if math.isfinite(limit):
                axes.axvspan(
                    ends[0] if column.better == "lower" else limit,
                    limit if column.better == "lower" else ends[1],
                    color=BAND,
                    lw=0,
                    zorder=0,
                )
                axes.set_xlim(ends)
            return


def _mark(axes: Axes, one: Score, row: int, place: str, control: bool, ends: tuple[float, float]) -> None:
    assert one.value is not None
    colour = GREY if control else COLOURS[0]
    value = min(max(one.value, ends[0]), ends[1])
    beyond = one.value != value or not math.isfinite(one.value)
    if beyond:
        axes.plot([value], [row], ">" if one.value > value else "<", color=colour, ms=3.5)
    else:
        if one.low is not None and one.high is not None:
            axes.plot([max(one.low, ends[0]), min(one.high, ends[1])], [row, row], color=colour, lw=0.9)
        marker = "D" if place == BEST else "s" if control else "o"
        axes.plot([value], [row], marker, color=colour, mfc=colour if place else "white", ms=3.5, mew=0.8)


def _write(axes: Axes, one: Score, row: int, text: str, ends: tuple[float, float]) -> None:
    """The value above its mark, inside the axis."""
    assert one.value is not None
    value, reach = min(max(one.value, ends[0]), ends[1]), 0.3 * (ends[1] - ends[0])
    middle = (ends[0] + ends[1]) / 2
    side = "left" if value < middle - reach else "right" if value > middle + reach else "center"
    axes.text(value, row - 0.42, text, ha=side, va="center", fontsize=SMALL)
