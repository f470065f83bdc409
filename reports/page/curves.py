"""Training curves: one small figure per quantity, drawn for a light and for a dark page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from medlord_bench.drawing.curves import Points, quantities, running_mean

from .figures import Picture, both

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from medlord_bench.results.run_results import Curve

FIRST = ("loss", "l1", "psnr", "codes_used")  # show whether a training went well; the rest is folded away


@dataclass(frozen=True)
class StageCurves:
    """pictures: the quantities to look at first. further: the others."""

    contestant: str
    stage: str
    pictures: Sequence[Picture]
    further: Sequence[Picture]
    note: str


def draw_curves(curves: Sequence[Curve]) -> list[StageCurves]:
    """The figures of every training stage, in the order of the folder."""
    return [_stage(curve) for curve in curves]


def _stage(curve: Curve) -> StageCurves:
    pictures: dict[str, Picture] = {}
    for name, series in quantities(curve.rows).items():
        pictures[name] = both((4.0, 2.6), partial(_draw, name, series), _alt(curve, name, series))
    notes = [] if pictures else ["no quantity was recorded"]
    if curve.unreadable:
        notes.append(f"{curve.unreadable} unreadable lines of the record were skipped")
    first = [name for name in FIRST if name in pictures] or list(pictures)[: len(FIRST)]
    further = [picture for name, picture in pictures.items() if name not in first]
    return StageCurves(curve.contestant, curve.stage, [pictures[name] for name in first], further, "; ".join(notes))


def _alt(curve: Curve, name: str, series: Mapping[str, Points]) -> str:
    parts = [
        f"{'validation' if split == 'val' else 'training'} from {points[0][1]:.3g} at step {points[0][0]:g} "
        f"to {points[-1][1]:.3g} at step {points[-1][0]:g}"
        for split, points in series.items()
    ]
    return f"{name} of {curve.contestant}, stage {curve.stage}: {'; '.join(parts)}"


def _draw(name: str, series: Mapping[str, Points], axes: Axes, colours: Mapping[str, str]) -> None:
    if "train" in series:
        _train(axes, series["train"], colours["train"])
    if "val" in series:
        steps, values = zip(*series["val"], strict=True)
        axes.plot(steps, values, color=colours["val"], lw=1.4, marker="o", ms=3.2, label="validation")
    _dress(axes, name, [value for points in series.values() for _, value in points], colours)


def _train(axes: Axes, points: Points, colour: str) -> None:
    """The record itself, faint, under its running mean if there are many points."""
    steps, values = zip(*points, strict=True)
    if len(points) < 60:
        axes.plot(steps, values, color=colour, lw=1.4, label="training", marker="o" * (len(points) == 1))
        return
    axes.plot(steps, values, color=colour, lw=0.7, alpha=0.3)
    axes.plot(steps, running_mean(values, len(points) // 30), color=colour, lw=1.5, label="training (running mean)")


def _dress(axes: Axes, name: str, values: Sequence[float], colours: Mapping[str, str]) -> None:
    from matplotlib.ticker import MaxNLocator

    low, high = min(values), max(values)
    if low > 0 and high > 10 * low:
        axes.set_yscale("log")
    elif high - low <= 1e-9 * max(abs(low), abs(high)):  # constant: no ticks of rounding errors
        axes.set_ylim(low - (abs(low) or 1), high + (abs(high) or 1))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_title(name.replace("_", " "), fontsize=12, color=colours["text"], loc="left", y=1.0, parse_math=False)
    axes.set_xlabel("step", fontsize=10, color=colours["text"])
    axes.tick_params(labelsize=9.5, colors=colours["text"], which="both")
    axes.grid(color=colours["grid"], lw=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(colours["grid"])
    axes.legend(fontsize=9, frameon=False, labelcolor=colours["text"])
