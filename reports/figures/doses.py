"""Quantities over a dose, as their metric declares (`Quantity.curve`): points with intervals, joined by lines."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from medlord_bench.contracts.results import Score
from medlord_bench.drawing.files import Drawn
from medlord_bench.drawing.style import COLOURS, LINES, MARKERS, SMALL, footnote, sheet, shorten
from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import RunResults

from .volumes import ordered

COLUMNS = ("contestant", "metric", "protocol", "dose", "value", "low", "high", "n")
NUMBER = re.compile(r"\d+(\.\d+)?")
Series = tuple[str, str]  # contestant, metric


def doses(run: RunResults, options: ReportOptions) -> Iterator[Drawn]:
    """A figure for each axis, with a panel for each contestant and a line for each quantity."""
    groups: dict[str, dict[Series, list[Score]]] = defaultdict(lambda: defaultdict(list))
    for score in run.scores:
        axis = run.quantities[score.metric].curve if score.metric in run.quantities else ""
        if axis and score.value is not None and NUMBER.match(score.region):
            groups[axis][score.generator, score.metric].append(score)
    for place, (axis, series) in enumerate(groups.items()):
        yield _figure("doses" if place == 0 else f"doses-{place + 1}", axis, series, run)


def dose_of(score: Score) -> float:
    """The number that its region begins with."""
    found = NUMBER.match(score.region)
    assert found is not None
    return float(found[0])


def _figure(name: str, axis: str, series: Mapping[Series, Sequence[Score]], run: RunResults) -> Drawn:
    contestants = [who for who in ordered(run) if any(one == who for one, _ in series)]
    metrics = list(dict.fromkeys(metric for _, metric in series))
    columns = min(len(contestants), 2)
    lines = -(-len(contestants) // columns)
    figure = sheet(85 if columns == 1 else 180, 16 + 3.2 * -(-len(metrics) // 2) + 58 * lines)
    axes = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    handles = {}
    scales = {run.quantities[metric].label.partition(",")[0] for metric in metrics}  # e.g. DSC of "DSC, 1x synthetic"
    scale = scales.pop() if len(scales) == 1 else "value"
    width = 0.012 * max(dose_of(score) for own in series.values() for score in own)
    for one, who in zip(axes, contestants, strict=False):
        for place, metric in enumerate(metrics):
            own = sorted(series.get((who, metric), ()), key=dose_of)
            if not own:
                continue
            x = [dose_of(score) + width * (place - (len(metrics) - 1) / 2) for score in own]  # intervals side by side
            y = [score.value for score in own]
            ends = [(score.low, score.high) for score in own]
            colour = COLOURS[place % len(COLOURS)]
            handles[metric] = one.plot(
                x, y, LINES[place % len(LINES)], marker=MARKERS[place % len(MARKERS)], color=colour, ms=3, lw=0.9
            )[0]  # fmt: skip
            for at, (low, high) in zip(x, ends, strict=True):
                if low is not None and high is not None:
                    one.plot([at, at], [low, high], color=colour, lw=0.8)
        ticks = sorted({dose_of(score) for (name, _), own in series.items() if name == who for score in own})
        one.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        one.set(title=shorten(who, 40), xlabel=axis, ylabel=scale)
    for one in axes[len(contestants) :]:
        one.set_axis_off()
    labels = [f" {shorten(run.quantities[metric].label, 40)}" for metric in handles]
    figure.legend(
        list(handles.values()), labels, loc="outside upper left", ncols=1 if columns == 1 else 3, fontsize=SMALL
    )
    intervals = list(dict.fromkeys(score.interval for own in series.values() for score in own if score.interval))
    footnote(figure, "Bars: " + "; ".join(intervals) + "." if intervals else "No intervals: too few patients.")
    rows = [
        [who, metric, score.protocol, dose_of(score), score.value, score.low, score.high, score.n]
        for (who, metric), own in series.items()
        for score in sorted(own, key=dose_of)
    ]
    return Drawn(name, figure, COLUMNS, rows)
