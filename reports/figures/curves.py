"""Training curves: a small panel per contestant and stage, loss with validation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medlord_bench.drawing.curves import Points, quantities, running_mean, thinned
from medlord_bench.drawing.files import Drawn, Value
from medlord_bench.drawing.style import (
    COLOURS,
    SMALL,
    footnote,
    logarithmic,
    plain,
    plain_numbers,
    sheet,
    shorten,
)  # fmt: skip
from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import Curve, RunResults

from .volumes import ordered

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE, COLUMNS_OF_PANELS = 20, 4
FIRST = ("loss", "l1", "generator")  # what a training minimises, by the names that the generators record
MANY, MOST = 60, 300  # points beyond which a running mean is drawn; most points of a line
TRAIN, VAL = COLOURS[0], COLOURS[5]
COLUMNS = ("contestant", "stage", "split", "quantity", "step", "value", "drawn_as")


@dataclass(frozen=True)
class Line:
    """how: the record itself, or its running mean."""

    split: str
    quantity: str
    points: Points
    how: str


@dataclass(frozen=True)
class Panel:
    contestant: str
    stage: str
    lines: Sequence[Line]


def curves(run: RunResults, options: ReportOptions) -> Iterator[Drawn]:
    """Pages of small panels, in the order of the contestants and their stages."""
    order = ordered(run)
    made = [_panel(curve) for curve in run.curves]
    made = [panel for panel in made if panel.lines]
    made.sort(key=lambda panel: order.index(panel.contestant) if panel.contestant in order else len(order))
    for start in range(0, len(made), PAGE):
        page = made[start : start + PAGE]
        yield _page("curves" if start == 0 else f"curves-{start // PAGE + 1}", page)


def _panel(curve: Curve) -> Panel:
    """The loss in both splits; without one, the first quantity that both have, or the first of each."""
    found = quantities(curve.rows)
    both = [name for name, series in found.items() if {"train", "val"} <= series.keys()]
    lines = []
    for split in ("train", "val"):
        own = [name for name, series in found.items() if split in series]
        choice = [*(name for name in FIRST if name in own), *both, *own]
        if choice:
            lines += _lines(split, choice[0], found[choice[0]][split])
    return Panel(curve.contestant, curve.stage, lines)


def _lines(split: str, name: str, points: Points) -> list[Line]:
    if split == "val" or len(points) < MANY:
        return [Line(split, name, thinned(points, MOST), "record")]
    means = running_mean([value for _, value in points], len(points) // 30)
    smooth = [(step, mean) for (step, _), mean in zip(points, means, strict=True)]
    return [
        Line(split, name, thinned(points, MOST), "record"),
        Line(split, name, thinned(smooth, MOST), "running mean"),
    ]


def _page(name: str, found: Sequence[Panel]) -> Drawn:
    columns = min(COLUMNS_OF_PANELS, len(found))
    lines = -(-len(found) // columns)
    figure = sheet({1: 85, 2: 122}.get(columns, 180), 12 + 40 * lines)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, one in zip(found, axes, strict=False):
        _draw(one, panel)
    for one in axes[len(found) :]:
        one.set_axis_off()
    footnote(
        figure,
        "Blue: training, faint the record and strong its running mean where there are many points. Orange with points: "
        "validation. Horizontal: training step.",
    )
    rows: list[list[Value]] = [
        [panel.contestant, panel.stage, line.split, line.quantity, step, value, line.how]
        for panel in found
        for line in panel.lines
        for step, value in line.points
    ]
    return Drawn(name, figure, COLUMNS, rows)


def _draw(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    smooth = any(line.how == "running mean" for line in panel.lines)
    for line in panel.lines:
        steps, values = [step for step, _ in line.points], [value for _, value in line.points]
        if line.split == "val":
            axes.plot(steps, values, color=VAL, marker="o", ms=2, mew=0, ls="--", zorder=3)
        else:
            faint = line.how == "record" and smooth
            axes.plot(
                steps, values, color=TRAIN, lw=0.4 if faint else 0.9, alpha=0.4 if faint else 1,
                marker="o" if len(steps) == 1 else None,
            )  # fmt: skip
    everything = [value for line in panel.lines for _, value in line.points]
    if logarithmic(everything):
        axes.set_yscale("log")
        decades = max(everything) / min(everything)
        axes.yaxis.set_major_locator(LogLocator(subs=(1,) if decades > 100 else (1, 3)))
        axes.yaxis.set_major_formatter(plain_numbers())
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.locator_params(axis="y", nbins=4)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_title(shorten(panel.contestant, 26) + "\n" + shorten(plain(panel.stage), 26))
    axes.set_ylabel(_label(panel.lines), fontsize=SMALL)


def _label(lines: Sequence[Line]) -> str:
    names: Mapping[str, str] = {line.split: plain(line.quantity) for line in lines}
    if len(set(names.values())) == 1:
        return shorten(next(iter(names.values())), 24)
    return f"{shorten(names['train'], 16)} (training)\n{shorten(names['val'], 16)} (validation)"
