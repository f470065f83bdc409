"""Predicted against measured peak memory of the steps."""

from __future__ import annotations

from collections.abc import Iterator

from medlord_bench.drawing.files import Drawn, Value
from medlord_bench.drawing.style import (
    COLOURS,
    GREY,
    MARKERS,
    SMALL,
    footnote,
    plain,
    plain_numbers,
    sheet,
    shorten,
)  # fmt: skip
from medlord_bench.memory.budget import DEFAULT_GIB
from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import RunResults
from medlord_bench.results.step_records import Memory

MEASURES = ("device", "reserved", "resident")  # of the card, of torch's allocator, of the process on a CPU
COLUMNS = ("step", "contestant", "kind", "predicted_gib", "measured_gib", "measure", "card", "evidence")


def memory(run: RunResults, options: ReportOptions) -> Iterator[Drawn]:
    """Steps that have both numbers; nothing without one."""
    rows: list[list[Value]] = []
    points: dict[str, list[tuple[float, float, str]]] = {}
    for step in run.steps:
        measure, peak = _measured(step.memory)
        if step.memory.predicted and peak:
            evidence = step.memory.evidence or "unknown"
            rows.append(
                [
                    step.name,
                    step.contestant,
                    step.kind,
                    step.memory.predicted,
                    peak,
                    measure,
                    step.memory.card,
                    evidence,
                ]
            )
            points.setdefault(evidence, []).append((step.memory.predicted, peak, step.name))
    if not rows:
        return
    from matplotlib.ticker import LogLocator, NullLocator

    figure = sheet(85, 85)
    axes = figure.add_subplot()
    values = [value for members in points.values() for point in members for value in point[:2]]
    low, high = min(values) / 1.4, max([*values, DEFAULT_GIB]) * 1.6
    axes.plot([low, high], [low, high], color=GREY, lw=0.6)
    axes.axhline(DEFAULT_GIB, color=GREY, lw=0.6, ls="--")
    axes.text(low * 1.03, DEFAULT_GIB * 1.04, f"{DEFAULT_GIB:g} GiB", fontsize=SMALL, color=GREY)
    for place, (evidence, members) in enumerate(points.items()):
        axes.plot(
            [point[0] for point in members], [point[1] for point in members], MARKERS[place % len(MARKERS)], ms=3.5,
            color=COLOURS[place % len(COLOURS)], mew=0.4, mec="white", label=f" {plain(evidence).replace('-', ' ')}",
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 100 else (1,)))
        axis.set_major_formatter(plain_numbers())
        axis.set_minor_locator(NullLocator())
    axes.set(xlabel="predicted peak (GiB)", ylabel="measured peak (GiB)")
    largest = max((point for members in points.values() for point in members), key=lambda point: point[1])
    figure.legend(loc="outside upper left", ncols=2)
    footnote(
        figure,
        f"A point is a step; below the line it needed less than was predicted. The largest: {shorten(largest[2], 40)}.",
    )
    yield Drawn("memory", figure, COLUMNS, rows)


def _measured(found: Memory) -> tuple[str, float | None]:
    for name in MEASURES:
        value: float | None = getattr(found, name)
        if value is not None:
            return name, value
    return "", None
