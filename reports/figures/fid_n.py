"""The Fréchet distance against the number of volumes, with its extrapolation to infinitely many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from medlord_bench.contracts.results import Score
from medlord_bench.drawing.files import Drawn, Value
from medlord_bench.drawing.style import GREY, SMALL, footnote, looks, sheet, shorten
from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import RunResults

from .volumes import ordered

if TYPE_CHECKING:
    from matplotlib.lines import Line2D

COLUMNS = ("contestant", "metric", "region", "reference", "protocol", "n", "distance")


def fid_n(run: RunResults, options: ReportOptions) -> Iterator[Drawn]:
    """A panel per reference and protocol; a line per contestant. n is of the samples; infinity is the last row."""
    found = [score for score in run.scores if score.points and score.value is not None]
    shown = [score for score in found if not score.region]
    if not shown:
        return
    groups = list(dict.fromkeys((score.metric, score.reference, score.protocol) for score in shown))
    names = [name for name in ordered(run) if any(score.generator == name for score in shown)]
    known = looks(ordered(run))
    columns = min(len(groups), 2)
    lines = -(-len(groups) // columns)
    figure = sheet(85 if columns == 1 else 180, 14 + 3.2 * -(-len(names) // 3) + 62 * lines)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    handles: dict[str, Line2D] = {}
    for group, one in zip(groups, axes, strict=False):
        members = [score for score in shown if (score.metric, score.reference, score.protocol) == group]
        for score in members:
            look = known[score.generator]
            n, values = zip(*score.points, strict=True)
            assert score.value is not None
            handles[score.generator] = one.plot(
                [1 / size for size in n], values, look.marker, color=look.colour, ms=3
            )[0]  # fmt: skip
            one.plot(
                [0, max(1 / size for size in n)],
                [score.value, _at(score, min(n))],
                look.line,
                color=look.colour,
                lw=0.8,
            )
            one.plot([0], [score.value], look.marker, color=look.colour, mfc="white", ms=3.5, clip_on=False, zorder=4)
        sizes = sorted({size for score in members for size, _ in score.points}, reverse=True)
        one.set_xticks([0, *(1 / size for size in sizes)], ["∞", *(f"{size:g}" for size in sizes)])
        one.axvline(0, color=GREY, lw=0.5)
        one.set(
            title=f"against {group[1] or 'real'} volumes", xlabel="volumes n (scale of 1/n)", ylabel="Fréchet distance"
        )
    for one in axes[len(groups) :]:
        one.set_axis_off()
    figure.legend(
        [handles[name] for name in names], [f" {shorten(name, 34)}" for name in names],
        loc="outside upper left", ncols=2 if columns == 1 else 4, fontsize=SMALL,
    )  # fmt: skip
    footnote(
        figure, "Filled: mean distance of subsets of n volumes. Open: extrapolated along the line; it has no interval."
    )
    rows = [row for score in found for row in _rows(score)]
    yield Drawn("fid_n", figure, COLUMNS, rows)


def _at(score: Score, n: float) -> float:
    """The fitted line at n: through the extrapolated value, with the least-squares slope of the points in 1/n."""
    import numpy as np

    size, values = np.array([one[0] for one in score.points]), np.array([one[1] for one in score.points])
    slope, limit = np.polyfit(1 / size, values, 1)
    return float(limit + slope / n)


def _rows(score: Score) -> Sequence[list[Value]]:
    where: list[Value] = [score.generator, score.metric, score.region, score.reference, score.protocol]
    points: list[tuple[Value, Value]] = [*score.points, ("infinity", score.value)]
    return [[*where, n, value] for n, value in points]
