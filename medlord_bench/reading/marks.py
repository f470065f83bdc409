"""Where readers marked something that looks wrong: counts by cue, and a heat map over the middle planes of the grid."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medlord_bench.drawing.files import Drawn, Value
from medlord_bench.drawing.style import SMALL, footnote, sheet, shorten

from .lock import packs_of
from .pack import case_file
from .study import Study
from .unblind import Unblinded

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COUNT_COLUMNS = ("source", "reader", "cue", "marks", "volumes_marked")
COLUMNS = ("source", "reader", "volume", "plane", "i", "j", "k", "cue")
PLANES = (("axial", 0, 1), ("coronal", 0, 2), ("sagittal", 1, 2))  # and the axes that each shows, across and up
WINDOW = (-1000, 400)  # of the background
CELLS = 16  # of the heat map along the longer side
ROWS = 6  # sources on one sheet


def counted(joined: Unblinded) -> list[list[Value]]:
    """Rows of COUNT_COLUMNS."""
    first = [one for one in joined.marks if not one.repeat]  # a hidden repeat counts for agreement alone
    marks = Counter((one.source, one.reader, one.mark.cue or "none") for one in first)
    volumes = {
        key: len({one.volume for one in first if (one.source, one.reader, one.mark.cue or "none") == key})
        for key in marks
    }
    return [[*key, count, volumes[key]] for key, count in sorted(marks.items())]


def heat_map(joined: Unblinded, study: Study) -> Drawn | None:
    """Marks of all slices, shown over the middle planes; None without marks. Call it within `drawing.style`."""
    joined = joined.model_copy(update={"marks": tuple(one for one in joined.marks if not one.repeat)})
    sources = [one.name for one in joined.sources if any(mark.source == one.name for mark in joined.marks)][:ROWS]
    if not sources:
        return None
    behind = _background(joined, study)
    most = max(_heat(joined, source, plane)[0].max() for source in sources for plane in PLANES)
    figure = sheet(122, 12 + 42 * len(sources))
    grid = figure.subplots(len(sources), len(PLANES), squeeze=False)
    for line, source in zip(grid, sources, strict=True):
        own = [one for one in joined.marks if one.source == source]
        for axes, plane in zip(line, PLANES, strict=True):
            _panel(axes, _heat(joined, source, plane), behind, plane, most)
            axes.set_title(plane[0] if source == sources[0] else "")
        volumes = len({one.volume for one in own})
        line[0].set_ylabel(f"{shorten(source, 24)}\n{len(own)} marks in {volumes} volumes", fontsize=SMALL)
    colour = f"marks in a cell, from 1 (yellow) to {int(most)} (red)" if most > 1 else "a cell with one mark"
    footnote(
        figure,
        "Marks of all readers and slices, over the mean middle planes of the real volumes that were read. Radiological "
        f"orientation. Colour: {colour}. A reader marks what was seen; an unmarked place is not judged.",
    )
    rows = [[one.source, one.reader, one.volume, one.mark.plane, *one.mark.point, one.mark.cue] for one in joined.marks]
    return Drawn("marks_map", figure, COLUMNS, rows)


def _heat(joined: Unblinded, source: str, plane: tuple[str, int, int]) -> tuple[NDArray[np.float64], ...]:
    """Marks in each cell, the edges of the cells across and up in mm, and the marks' places (n, 3) in mm."""
    _, across, up = plane
    grid = joined.grid
    size = [grid.shape[axis] * grid.spacing[axis] for axis in (across, up)]
    points = [one.mark.point for one in joined.marks if one.source == source]
    places = (np.array(points) + 0.5) * grid.spacing
    edges = [np.linspace(0, one, max(1, round(CELLS * one / max(size))) + 1) for one in size]
    heat = np.histogram2d(places[:, across], places[:, up], bins=edges)[0]
    return heat, edges[0], edges[1], places


def _panel(
    axes: Axes,
    found: tuple[NDArray[np.float64], ...],
    behind: NDArray[np.float64] | None,
    plane: tuple[str, int, int],
    most: float,
) -> None:
    from matplotlib.patheffects import withStroke

    heat, right, top, places = found
    name, across, up = plane
    if behind is not None:
        through = ({0, 1, 2} - {across, up}).pop()
        picture = behind.take(behind.shape[through] // 2, axis=through)
        extent = (0.0, right[-1], 0.0, top[-1])
        axes.imshow(picture.T, origin="lower", extent=extent, cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1])
    shown = np.ma.masked_equal(heat.T, 0)
    axes.pcolormesh(right, top, shown, cmap="autumn_r", alpha=0.6, vmin=1, vmax=max(2, most))
    axes.plot(places[:, across], places[:, up], ".", color="black", ms=2)
    # The patient's right, and the front of a sagittal plane, are at the left.
    axes.set(xlim=(right[-1], 0), ylim=(0, top[-1]), xticks=[], yticks=[], aspect="equal")
    for letter, at in zip("AP" if name == "sagittal" else "RL", (0.03, 0.97), strict=True):
        outline = [withStroke(linewidth=1.5, foreground="white")]
        axes.text(
            at, 0.5, letter, transform=axes.transAxes, ha="left" if at < 0.5 else "right", va="center", fontsize=SMALL,
            path_effects=outline,
        )  # fmt: skip


def _background(joined: Unblinded, study: Study) -> NDArray[np.float64] | None:
    """(X, Y, Z): the mean of the real volumes of the first pack that has its raw cases."""
    real = {one.code for one in joined.rows if one.source in joined.real}
    for one in joined.choices:
        real |= {one.code} if one.source in joined.real else set()
    for pack in packs_of(study):
        files = [case_file(study.pack(pack.reader), code) for code in sorted(real & set(pack.codes))]
        whole = [path for path in files if path.exists() and path.stat().st_size == pack.grid.bytes]
        if whole:
            total = np.zeros(pack.grid.shape)
            for path in whole:
                total += np.memmap(path, dtype="<i2", mode="r", shape=pack.grid.shape)
            return total / len(whole)
    return None
