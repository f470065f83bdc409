"""A sheet of CT planes, all at one scale in mm, with the patient's sides beside them and mask contours on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medlord_bench.drawing.slices import Plane
from medlord_bench.drawing.style import COLOURS, HEIGHT_MM, SMALL, TEXT, sheet, shorten, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

LABEL_MM, GAP_MM, TOP_MM, LINE_MM = 22.0, 5.5, 7.0, 2.6  # names at the left; room for letters; headings; a line of text
NAME, NAME_SMALL = 14, 18  # letters of a name that fit its column
CONTOURS: Sequence[Any] = ("-", (0, (3, 0.8)), "-.")  # lines
LEAST_PANEL_MM = 12.0  # height of a row without any picture


@dataclass(frozen=True, eq=False)
class Cell:
    """plane: None leaves a panel with the words of `absent`. labels: of the mask, rows and columns as the plane's."""

    plane: Plane | None
    absent: str = ""
    labels: NDArray[Any] | None = None


@dataclass(frozen=True)
class Band:
    """A row of the sheet. names: below one another at its left."""

    names: Sequence[str]
    cells: Sequence[Cell]


def contour_looks(regions: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """Region -> colour and line style: neighbours differ in both."""
    return {
        region: (COLOURS[place % len(COLOURS)], CONTOURS[(place + place // len(COLOURS)) % len(CONTOURS)])
        for place, region in enumerate(regions)
    }


def panels(
    bands: Sequence[Band],
    headings: Sequence[str],
    note: str,
    width_mm: float,
    regions: Mapping[str, Sequence[int]] | None = None,
) -> Figure:
    """Headings above the columns. regions: name -> labels, for contours and their legend."""
    widths, heights, scale = _scale(bands, len(headings), width_mm)
    text = wrapped(note, width_mm)
    shown = regions or {}
    rows = -(-len(shown) // 4)
    below = LINE_MM * (text.count("\n") + 1 + rows) + 2
    height = TOP_MM + sum(heights) + GAP_MM * (len(heights) - 0.5) + below
    figure = sheet(width_mm, height, constrained=False)
    page = _Page(figure, width_mm, height)
    free = width_mm - LABEL_MM - sum(widths) - GAP_MM * len(widths)
    lefts = [LABEL_MM + free / 2 + sum(widths[:i]) + GAP_MM * (i + 0.5) for i in range(len(widths))]
    for left, width, heading in zip(lefts, widths, headings, strict=True):
        most = max(int((width + GAP_MM) / 1.35), 8)
        page.text(left + width / 2, height - 2.2, shorten(heading, most), TEXT)
    top = height - TOP_MM
    for band, tall in zip(bands, heights, strict=True):
        page.names(band.names, top - tall / 2)
        for cell, left, width in zip(band.cells, lefts, widths, strict=True):
            page.cell(cell, (left, top - tall, width, tall), scale, shown)
        top -= tall + GAP_MM
    page.legend(list(shown), below)
    page.text(1.0, 1.0 + LINE_MM * 0.5 * (text.count("\n") + 1), text, SMALL, "left")
    return figure


def _scale(bands: Sequence[Band], columns: int, width_mm: float) -> tuple[list[float], list[float], float]:
    """Width of each column and height of each row on paper, and paper per patient."""
    sizes = [[cell.plane.size if cell.plane else (0.0, 0.0) for cell in band.cells] for band in bands]
    widths = [max(row[i][0] for row in sizes) for i in range(columns)]
    widths = [width or max(widths) or 1.0 for width in widths]
    heights = [max(size[1] for size in row) for row in sizes]
    across = (width_mm - LABEL_MM - GAP_MM * columns - 1) / sum(widths)
    down = (HEIGHT_MM - TOP_MM - 12 - GAP_MM * len(heights)) / max(sum(heights), 1e-9)
    scale = min(across, down)
    return [width * scale for width in widths], [max(tall * scale, LEAST_PANEL_MM) for tall in heights], scale


@dataclass(frozen=True)
class _Page:
    figure: Figure
    width: float
    height: float

    def text(self, x: float, y: float, text: str, size: float, ha: str = "center") -> None:
        """Text whose middle is at a position in mm."""
        self.figure.text(x / self.width, y / self.height, text, ha=ha, va="center", fontsize=size)

    def names(self, names: Sequence[str], middle: float) -> None:
        """The first name in larger letters, in two lines of smaller ones if it is long."""
        first, *others = names
        lines = [(first, TEXT)] if len(first) <= NAME else [(part, SMALL) for part in _two_lines(first)]
        lines += [(shorten(name, NAME_SMALL), SMALL) for name in others]
        for line, (text, size) in enumerate(lines):
            self.text(1.0, middle + LINE_MM * 1.15 * ((len(lines) - 1) / 2 - line), text, size, "left")

    def cell(
        self,
        cell: Cell,
        box: tuple[float, float, float, float],
        scale: float,
        regions: Mapping[str, Sequence[int]],
    ) -> None:
        import numpy as np

        left, bottom, width, height = box
        if cell.plane is None:
            axes = self.figure.add_axes(
                (left / self.width, bottom / self.height, width / self.width, height / self.height)
            )
            axes.set(xticks=[], yticks=[], facecolor="#f2f2f2")
            axes.spines[:].set_visible(False)
            words = wrapped(shorten(cell.absent, 90), max(width - 2, 10))
            axes.text(0.5, 0.5, words, ha="center", va="center", fontsize=SMALL, transform=axes.transAxes)
            return
        w, h = cell.plane.size[0] * scale, cell.plane.size[1] * scale
        x, y = left + (width - w) / 2, bottom + (height - h) / 2
        axes = self.figure.add_axes((x / self.width, y / self.height, w / self.width, h / self.height))
        rgb = np.repeat(cell.plane.grey[:, :, None], 3, axis=2)  # bytes as they are: no colour map, no floats
        axes.imshow(rgb, aspect="auto", interpolation="none")
        axes.set_axis_off()
        if cell.labels is not None and min(cell.labels.shape) > 1:
            _contours(axes, cell.labels, regions)
        places = ((x - 1.4, y + h / 2), (x + w + 1.4, y + h / 2), (x + w / 2, y + h + 1.4), (x + w / 2, y - 1.4))
        for side, place in zip(cell.plane.sides, places, strict=True):
            self.text(*place, side, SMALL)

    def legend(self, regions: Sequence[str], height: float) -> None:
        from matplotlib.lines import Line2D

        if not regions:
            return
        lines = [Line2D([], [], color=colour, ls=line, lw=1.2) for colour, line in contour_looks(regions).values()]
        names = [shorten(name, 26).lstrip("_") or "?" for name in regions]
        self.figure.legend(
            lines,
            names,
            loc="upper center",
            bbox_to_anchor=(0.5, height / self.height),
            ncols=min(4, len(names)),
            borderaxespad=0,
            labelspacing=0.25,
            handlelength=2.4,
            fontsize=SMALL,
        )


def _two_lines(name: str) -> list[str]:
    if len(name) <= NAME_SMALL:
        return [name]
    ends = [place + 1 for place, letter in enumerate(name[:NAME_SMALL]) if letter in ":@-_+ "]
    at = ends[-1] if ends else NAME_SMALL
    return [name[:at], shorten(name[at:], NAME_SMALL)]


def _contours(axes: Axes, labels: NDArray[Any], regions: Mapping[str, Sequence[int]]) -> None:
    import numpy as np

    for values, (colour, line) in zip(regions.values(), contour_looks(list(regions)).values(), strict=True):
        inside = np.isin(labels, list(values))
        if inside.any() and not inside.all():
            axes.contour(inside, levels=[0.5], colors=[colour], linewidths=0.9, linestyles=[line])


def width_for(columns: int) -> float:
    """The journal width for so many columns of pictures."""
    return 85 if columns == 1 else 122 if columns <= 3 else 180
