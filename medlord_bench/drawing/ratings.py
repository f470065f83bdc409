"""A reading study: answers per category as stacked bars, and how often a source was called real (the paper's Fig. 4)."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from medlord_bench.drawing.files import Drawn, Value
from medlord_bench.drawing.style import GREY, HEIGHT_MM, MM, REAL, SMALL, plain, sheet, shorten, wrapped
from medlord_bench.results.ratings import REAL as REAL_SOURCE
from medlord_bench.results.ratings import Rating

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 4  # of a reader in a row
NOTE_MM = 8.0  # below the panels
SHORT, LABEL_WIDTH, TITLE_WIDTH = 10, 38, 30  # letters of a level in a legend of several columns, and of lines
LEGEND_LINES = 5  # that there is always room for
CANNOT = "cannot assess"
COLUMNS = (*Rating.model_fields, "called_real", "low", "high")


def ratings(found: Sequence[Rating], contestants: Sequence[str]) -> Iterator[Drawn]:
    """A block per reader: readers are not pooled, since they saw the same volumes. Call it within `drawing.style`.

    contestants: in their order; real volumes come first.
    """
    readers = list(dict.fromkeys(one.reader for one in found))
    order = [REAL_SOURCE, *contestants]
    sources = sorted(
        dict.fromkeys(one.source for one in found), key=lambda name: order.index(name) if name in order else len(order)
    )
    lines = -(-len({one.category for one in found}) // PANELS)
    fit = max(1, int((HEIGHT_MM - NOTE_MM) / _block_mm(found, lines, len(sources))))
    for start in range(0, len(readers), fit):
        page = readers[start : start + fit]
        name = "ratings" if start == 0 else f"ratings-{start // fit + 1}"
        yield _page(name, [one for one in found if one.reader in page], page, sources, len(readers))


def _page(name: str, found: Sequence[Rating], readers: Sequence[str], sources: Sequence[str], of: int) -> Drawn:
    categories = list(dict.fromkeys(one.category for one in found))
    columns = min(len(categories), PANELS)
    lines = -(-len(categories) // columns)
    tall = _block_mm(found, lines, len(sources))
    figure = sheet(180 if columns > 2 else 122, NOTE_MM + len(readers) * tall)
    ratios = [*[tall] * (len(readers) - 1), tall + NOTE_MM]
    blocks = figure.subfigures(len(readers), 1, squeeze=False, height_ratios=ratios)[:, 0]
    for reader, block in zip(readers, blocks, strict=True):
        own = [one for one in found if one.reader == reader]
        if of > 1:
            block.suptitle(f"Reader {shorten(reader, 40)}", x=0.01, ha="left", fontsize=7)
        axes = block.subplots(lines, columns, squeeze=False).ravel()
        for place, (category, one) in enumerate(zip(categories, axes, strict=False)):
            members = [rating for rating in own if rating.category == category]
            if members and members[0].role == "verdict":
                _verdict(one, members, sources)
            else:
                known = {r.level: r.label for r in found if r.category == category}
                _stack(one, members, sources, known, _shown(own))
            one.set_title(textwrap.fill(plain(category), TITLE_WIDTH))
            _names(one, sources, place % columns == 0)
        for one in axes[len(categories) :]:
            one.set_axis_off()
    _note(figure, blocks[-1])
    return Drawn(name, figure, COLUMNS, [_row(one) for one in found])


def _block_mm(found: Sequence[Rating], lines: int, sources: int) -> float:
    """Height of one reader's panels, in `lines` rows."""
    long = any(len(plain(one.category)) > TITLE_WIDTH for one in found)
    return 6 + lines * (3 + 3 * long + 2.2 * _legend_lines(found) + 4.2 * sources)


def _note(figure: Figure, last: object) -> None:
    from matplotlib.figure import SubFigure

    assert isinstance(last, SubFigure)
    text = (
        "Numbers in bars: volumes. Dark: lowest level; words of levels as the reader saw them. Points: share called real, with its 95 % Wilson interval; read a "
        "source beside the real volumes."
    )
    last.supxlabel(wrapped(text, figure.get_figwidth() / MM), x=0.01, ha="left", fontsize=SMALL, color=GREY)


def _row(one: Rating) -> list[Value]:
    shares = _called_real(one) if one.role == "verdict" and one.level == 1 else (None, None, None)
    return [*one.model_dump().values(), *shares]


def _called_real(one: Rating) -> tuple[float, float, float]:
    from medlord_bench import stats

    low, high = stats.wilson(one.count, one.n)
    return one.count / one.n, low, high


def _shown(own: Sequence[Rating]) -> dict[str, int]:
    """Volumes of each source that a reader judged: a case is answered in all questions, in some by "cannot assess"."""
    return {source: max(one.n for one in own if one.source == source) for source in {one.source for one in own}}


def _stack(
    axes: Axes,
    members: Sequence[Rating],
    sources: Sequence[str],
    known: Mapping[int, str],
    shown: Mapping[str, int],
) -> None:
    """Bars of levels. shown: volumes of a source; those without a level here are a hatched rest."""
    from matplotlib import colormaps

    labels = {level: known[level] or str(level) for level in sorted(known)}
    most = max(shown.values(), default=1)
    for rank, level in enumerate(labels):
        shade = 0.08 + 0.9 * rank / max(len(labels) - 1, 1)
        colour = colormaps["cividis"](shade)
        for place, source in enumerate(sources):
            start = sum(one.count for one in members if one.source == source and one.level < level)
            count = next((one.count for one in members if one.source == source and one.level == level), 0)
            if count:
                axes.barh(place, count, left=start, height=0.72, color=colour, edgecolor="white", lw=0.4)
                ink = "white" if shade < 0.5 else "black"
                axes.text(start + count / 2, place, str(count), ha="center", va="center", fontsize=SMALL, color=ink)
        axes.plot([], [], "s", ms=3.5, color=colour, label=_label(labels[level]))
    rest = {source: shown.get(source, 0) - _given(members, source) for source in sources}
    for place, source in enumerate(sources):
        if rest[source]:
            start = _given(members, source)
            axes.barh(place, rest[source], left=start, height=0.72, color="white", edgecolor=GREY, hatch="////", lw=0.4)
    if any(rest.values()):
        axes.fill_between([], [], facecolor="white", edgecolor=GREY, hatch="////", lw=0.4, label=f" {CANNOT}")
    axes.set_xlim(0, most)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.legend(
        loc="upper left", bbox_to_anchor=(0, 0), ncols=_columns(labels.values()),
        borderaxespad=0.2, handlelength=0.8, handletextpad=0.2, columnspacing=0.6, labelspacing=0.15, fontsize=SMALL - 0.5,
    )  # fmt: skip


def _given(members: Sequence[Rating], source: str) -> int:
    """Volumes of a source with a level."""
    return sum(one.count for one in members if one.source == source)


def _columns(labels: Collection[str]) -> int:
    """Of a legend: several where the labels of all levels are short."""
    return 1 if max(map(len, labels), default=0) > SHORT else 3


def _label(text: str) -> str:
    """A level's words, on as many lines as they need."""
    return "\n".join(f" {line}" for line in textwrap.wrap(text, LABEL_WIDTH))


def _legend_lines(found: Sequence[Rating]) -> int:
    """Of the longest legend."""
    lines = [LEGEND_LINES]
    for category in {one.category for one in found if one.role != "verdict"}:
        labels = {one.level: one.label for one in found if one.category == category}.values()
        rows = sum(max(1, len(_label(label).splitlines())) for label in labels)
        more = 1  # of those without a level
        lines.append(rows + more if _columns(labels) == 1 else -(-(len(labels) + more) // _columns(labels)))
    return max(lines)


def _verdict(axes: Axes, members: Sequence[Rating], sources: Sequence[str]) -> None:
    for place, source in enumerate(sources):
        one = next((one for one in members if one.source == source and one.level == 1), None)
        if one is None:
            continue
        share, low, high = _called_real(one)
        colour = REAL if source == REAL_SOURCE else "#0072B2"
        axes.plot([100 * low, 100 * high], [place, place], color=colour, lw=1)
        axes.plot([100 * share], [place], "D" if source == REAL_SOURCE else "o", color=colour, ms=3.5)
        axes.text(106, place, f"{one.count}/{one.n}", va="center", fontsize=SMALL)
    axes.set(xlim=(-3, 128), xticks=[0, 50, 100], xlabel="called real (%)")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _names(axes: Axes, sources: Sequence[str], shown: bool) -> None:
    texts = [shorten(source, 24) for source in sources] if shown else [""] * len(sources)
    axes.set_yticks(range(len(sources)), texts, fontsize=SMALL)
    axes.set_ylim(len(sources) - 0.5, -0.5)
