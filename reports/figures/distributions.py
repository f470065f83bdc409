"""Distributions of a quantity per region, contestants beside the range of real volumes (RVR: the paper's Fig. 3)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medlord_bench.contracts.metrics import Quantity
from medlord_bench.contracts.results import CaseRow, Score
from medlord_bench.drawing.distributions import REAL, by_region
from medlord_bench.drawing.files import Drawn, Value
from medlord_bench.drawing.style import BAND, GREY, SMALL, footnote, looks, plain, sheet, shorten
from medlord_bench.drawing.style import REAL as BLACK
from medlord_bench.results.pictures import short_id
from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import RunResults

from .volumes import ordered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW = 20  # cases up to which each is a point
RANGE = (0.025, 0.975)  # of the real volumes: the band
PAGE = 12  # panels on a page
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
COLUMNS = ("quantity", "protocol", "region", "source", "case", "value", "real_low", "real_high", "real_range_of")


@dataclass(frozen=True)
class Panel:
    """One region. band: the real range and the split that it is of; None without real volumes."""

    region: str
    sources: Mapping[str, Mapping[str, float]]
    band: tuple[float, float, str] | None


def distributions(run: RunResults, options: ReportOptions) -> Iterator[Drawn]:
    """Pages for each quantity that declares a distribution, each protocol by itself."""
    for quantity in run.quantities.values():
        if not quantity.distribution:
            continue
        number = 0
        for protocol, rows in _by_protocol(run.scores, run.rows, quantity.name):
            found = [_panel(region, sources) for region, sources in by_region(rows, quantity.name).items()]
            found = [panel for panel in found if any(panel.sources.values())]
            for start in range(0, len(found), PAGE):
                number += 1
                name = quantity.name if number == 1 else f"{quantity.name}-{number}"
                yield _page(name, quantity, protocol, found[start : start + PAGE], run, options.share)


def _by_protocol(scores: Sequence[Score], rows: Sequence[CaseRow], metric: str) -> Iterator[tuple[str, list[CaseRow]]]:
    """Case rows carry no protocol: a contestant's are of the protocol of its scores, real ones of every protocol."""
    owners: dict[str, list[str]] = {}
    for score in scores:
        if score.metric == metric and score.generator not in owners.setdefault(score.protocol, []):
            owners[score.protocol].append(score.generator)
    for protocol, names in (owners or {"": []}).items():
        own = [row for row in rows if not row.generator or row.generator in names or not owners]
        if own:
            yield protocol, own


def _panel(region: str, sources: Mapping[str, Mapping[str, float]]) -> Panel:
    finite = {
        name: {case: value for case, value in cases.items() if math.isfinite(value)} for name, cases in sources.items()
    }
    split = next((one for one in ("train", "test", "val", "") if finite.get(f"{REAL}{one}")), None)
    band = None
    if split is not None:
        import numpy as np

        low, high = np.quantile(list(finite[f"{REAL}{split}"].values()), RANGE)
        band = (float(low), float(high), split)
    return Panel(region, finite, band)


def _page(name: str, quantity: Quantity, protocol: str, found: Sequence[Panel], run: RunResults, share: bool) -> Drawn:
    names = [one for one in ordered(run) if any(one in panel.sources for panel in found)]
    real = list(dict.fromkeys(one for panel in found for one in panel.sources if one.startswith(REAL)))
    order = [*real, *names]
    known = looks(ordered(run))
    colours = {one: _real_colour(one) if one in real else known[one].colour for one in order}
    width = 180 if len(order) > 3 or len(found) > 4 else 122
    columns = max(1, min(4, len(found), int(width / (14 + 3.4 * len(order)))))
    lines = -(-len(found) // columns)
    figure = sheet(width, min(24 + 3.2 * -(-len(order) // 3) + 38 * lines, 225))
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, one in zip(found, axes, strict=False):
        _draw(one, panel, order, colours, quantity.distribution)
    for one in axes[len(found) :]:
        one.set_axis_off()
    sizes = {one: max(len(panel.sources.get(one, ())) for panel in found) for one in order}
    _legend(figure, sizes, colours)
    split = next((panel.band[2] for panel in found if panel.band), "")
    footnote(
        figure,
        f"Grey: 2.5 to 97.5 % of the real {split} volumes. Lines in a violin: quartiles. Points: cases, where there are "
        f"at most {FEW}. ∅: cases without the region, of n. Protocol {protocol}.",
    )
    return Drawn(name, figure, COLUMNS, list(_rows(quantity.name, protocol, found, share)))


def _rows(name: str, protocol: str, found: Sequence[Panel], share: bool) -> Iterator[list[Value]]:
    for panel in found:
        low, high, split = panel.band or (None, None, "")
        for source, cases in panel.sources.items():
            for case, value in cases.items():
                told = "" if share and source.startswith(REAL) else short_id(case)
                yield [name, protocol, panel.region, source, told, value, low, high, split]


def _draw(axes: Axes, panel: Panel, order: Sequence[str], colours: Mapping[str, str], label: str) -> None:
    values = [value for cases in panel.sources.values() for value in cases.values()]
    exponent = _exponent(values)
    factor = 10.0**-exponent
    if panel.band:
        axes.axhspan(panel.band[0] * factor, panel.band[1] * factor, color=BAND, lw=0, zorder=0)
    under, violins = [], {}
    for place, source in enumerate(order):
        own = [value * factor for value in panel.sources.get(source, {}).values()]
        missing = sum(value == 0 for value in own)
        under.append(str(place + 1) + (f"\n∅{missing}" if missing else ""))
        if len(set(own)) > 2:
            violins[place] = own
        elif own:
            middle = sorted(own)[len(own) // 2]
            axes.plot([place - 0.3, place + 0.3], [middle] * 2, color=colours[source], lw=1.2)
        if len(own) <= FEW:
            aside = [place + 0.36 * ((index * 0.618034) % 1 - 0.5) for index in range(len(own))]
            axes.plot(aside, own, "o", ms=1.6, mew=0, color=colours[source], zorder=3)
    _violins(axes, violins, {place: colours[order[place]] for place in violins})
    axes.set_xticks(range(len(order)), under, fontsize=SMALL)
    axes.set_xlim(-0.6, len(order) - 0.4)
    low = min([*(value * factor for value in values), *((panel.band[0] * factor,) if panel.band else ())])
    axes.set_ylim(bottom=-0.04 * axes.get_ylim()[1] if low >= 0 and low == 0 else None)
    axes.set_title(shorten(plain(panel.region), 30))
    scaled = f" (×10{str(exponent).translate(SUPERSCRIPTS)})" if exponent else ""
    axes.set_ylabel(f"{label}{scaled}", fontsize=SMALL)
    axes.locator_params(axis="y", nbins=4)


def _violins(axes: Axes, values: Mapping[int, Sequence[float]], colours: Mapping[int, str]) -> None:
    """place on the axis -> values."""
    import seaborn

    if not values:
        return
    places = [place for place, own in values.items() for _ in own]
    before = len(axes.collections)
    seaborn.violinplot(
        x=places, y=[value for own in values.values() for value in own], hue=places, palette=dict(colours),
        native_scale=True, legend=False, cut=0, density_norm="width", common_norm=False, inner="quart",
        width=0.8 / _gap(values), linewidth=0.6, saturation=1, ax=axes,
    )  # fmt: skip
    for body, colour in zip(axes.collections[before:], colours.values(), strict=True):
        body.set(alpha=0.45, edgecolor=colour)
    axes.set(xlabel="", ylabel="")


def _gap(places: Mapping[int, object]) -> int:
    """The smallest distance of two places, of which seaborn takes a width as a share."""
    order = sorted(places)
    return min((b - a for a, b in zip(order, order[1:], strict=False)), default=1)


def _real_colour(source: str) -> str:
    return BLACK if source == f"{REAL}train" else GREY


def _exponent(values: Sequence[float]) -> int:
    """A multiple of 3, so that the axis has numbers from 1 to 1,000."""
    largest = max((abs(value) for value in values), default=0.0)
    return 3 * math.floor(math.log10(largest) / 3) if largest > 0 else 0


def _legend(figure: Figure, sizes: Mapping[str, int], colours: Mapping[str, str]) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=colours[source], alpha=0.6) for source in sizes]
    texts = [f"{place + 1}  {shorten(source, 30)} (n {n})" for place, (source, n) in enumerate(sizes.items())]
    columns = 3 if max(map(len, texts)) > 24 else 4
    figure.legend(patches, texts, loc="outside upper left", ncols=columns, handlelength=1.0, columnspacing=1.2)
