"""Where readers marked something that looks wrong: counts by cue, and a heat map over the middle planes of the grid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medlord_bench.drawing.files import Drawn, Value
from medlord_bench.drawing.style import SMALL, footnote, sheet, shorten

from .lock import packs_of
from .pack import case_file
from .rebuild import StudyGrid
from .study import Study
from .unblind import Marked, Unblinded

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
    marks = Counter((one.source, one.reader, one.mark.cue or "none") for one in joined.marks)
    volumes = {
        key: len({one.volume for one in joined.marks if (one.source, one.reader, one.mark.cue or "none") == key})
        for key in marks
    }
    return [[*key, count, volumes[key]] for key, count in sorted(marks.items())]


def heat_map(joined: Unblinded, study: Study) -> Drawn | None:
    """Marks of all slices, shown over the middle planes; None without marks. Call it within `drawing.style`."""
    sources = [one.name for one in joined.sources if any(mark.source == one.name for mark in joined.marks)][:ROWS]
    if not sources:
        return None
    behind = _background(joined, study)
    figure = sheet(122, 12 + 42 * len(sources))
    grid = figure.subplots(len(sources), len(PLANES), squeeze=False)
    for line, source in zip(grid, sources, strict=True):
        own = [one for one in joined.marks if one.source == source]
        for axes, (plane, across, up) in zip(line, PLANES, strict=True):
            _panel(axes, own, behind, joined.grid, (across, up))
            axes.set_title(plane if source == sources[0] else "")
        volumes = len({one.volume for one in own})
        line[0].set_ylabel(f"{shorten(source, 24)}\n{len(own)} marks in {volumes} volumes", fontsize=SMALL)
    footnote(
        figure,
        "Marks of all readers and slices, over the mean middle planes of the real volumes that were read. Radiological "
        "orientation. Colour: marks in a cell. A reader marks what was seen; an unmarked place is not judged.",
    )
    rows = [[one.source, one.reader, one.volume, one.mark.plane, *one.mark.point, one.mark.cue] for one in joined.marks]
    return Drawn("marks_map", figure, COLUMNS, rows)


def _panel(
    axes: Axes, marks: Sequence[Marked], behind: NDArray[np.float64] | None, grid: StudyGrid, plane: tuple[int, int]
) -> None:
    across, up = plane
    size = [grid.shape[across] * grid.spacing[across], grid.shape[up] * grid.spacing[up]]
    extent = (0.0, size[0], 0.0, size[1])
    if behind is not None:
        through = ({0, 1, 2} - {across, up}).pop()
        picture = behind.take(behind.shape[through] // 2, axis=through)
        axes.imshow(picture.T, origin="lower", extent=extent, cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1])
    places = [(np.array(one.mark.point) + 0.5) * grid.spacing for one in marks]
    cell = max(size) / CELLS
    edges = [np.linspace(0, one, max(1, round(one / cell)) + 1) for one in size]
    heat, _, _ = np.histogram2d([one[across] for one in places], [one[up] for one in places], bins=edges)
    shown = np.ma.masked_equal(heat.T, 0)
    axes.pcolormesh(edges[0], edges[1], shown, cmap="autumn_r", alpha=0.6, vmin=0, vmax=max(1, heat.max()))
    axes.plot([one[across] for one in places], [one[up] for one in places], ".", color="black", ms=2)
    axes.set(
        xlim=(size[0], 0) if across == 0 else (0, size[0]), ylim=(0, size[1]), xticks=[], yticks=[], aspect="equal"
    )


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
