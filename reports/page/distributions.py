"""Volume of each organ: one strip of dots per contestant, beside the real volumes by the same segmenter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from medlord_bench.contracts.metrics import Quantity
from medlord_bench.contracts.results import CaseRow
from medlord_bench.drawing.distributions import REAL, by_region

from .figures import Picture, both

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Strips = dict[str, list[float]]  # contestant or real split -> a value per case


def draw_distributions(rows: Sequence[CaseRow], quantities: Iterable[Quantity]) -> list[Picture]:
    """One figure for each region of each quantity that has a `distribution` and case rows.

    rows: of one protocol. Real volumes are on top.
    """
    pictures = []
    for quantity in quantities:
        if not quantity.distribution:
            continue
        for region, by_source in by_region(rows, quantity.name).items():
            strips = {name: list(values.values()) for name, values in by_source.items()}
            draw = partial(_draw, region, quantity.distribution, strips)
            pictures.append(both((4.0, 0.9 + 0.22 * len(strips)), draw, _alt(quantity.name, region, strips)))
    return pictures


def _alt(quantity: str, region: str, strips: Strips) -> str:
    told = "; ".join(f"{name} median {median(values):.3g} of {len(values)}" for name, values in strips.items())
    return f"{quantity} of {region}: {told}"


def _draw(region: str, axis: str, strips: Strips, axes: Axes, colours: Mapping[str, str]) -> None:
    for place, (name, values) in enumerate(strips.items()):
        colour = colours["val"] if name.startswith(REAL) else colours["train"]
        axes.plot(values, [place] * len(values), "o", ms=3.4, alpha=0.45, mew=0, color=colour)
        axes.plot([median(values)], [place], "|", ms=11, mew=1.8, color=colours["text"])
    axes.set_yticks(range(len(strips)), list(strips), fontsize=8.5, parse_math=False)
    axes.set_ylim(len(strips) - 0.5, -0.5)
    axes.set_title(region.replace("_", " "), fontsize=11, color=colours["text"], loc="left", y=1.0, parse_math=False)
    axes.set_xlabel(axis, fontsize=9, color=colours["text"])
    axes.tick_params(labelsize=8.5, colors=colours["text"])
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x", color=colours["grid"], lw=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(colours["grid"])
