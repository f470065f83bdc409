"""Real volumes beside generated ones: one figure per row of `results/montage.json`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medlord_bench.drawing.slices import NAMES, Plane, shown
from medlord_bench.results import pictures
from medlord_bench.volumes.planes import read_planes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .figures import Picture

MAX_COLUMNS = 6  # columns of one figure


@dataclass(frozen=True)
class MontageRow:
    title: str
    picture: Picture | None
    note: str


@dataclass(frozen=True)
class Montage:
    window: tuple[float, float]
    spacing: str
    rows: Sequence[MontageRow]


@dataclass(frozen=True)
class Column:
    """One volume of a row: its planes, or the reason why there are none."""

    title: str
    planes: Sequence[Plane]
    absent: str = ""


def draw_montage(montage: pictures.Montage) -> Montage:
    """Draw every row. A volume that is no longer on disk leaves a panel that says so.

    Raises `UserError` if a file is not a volume.
    """
    window, spacing = montage.window, montage.spacing
    rows = [_row(row, window, spacing) for row in montage.rows]
    words = " x ".join(f"{step:.3g}" for step in spacing) + " mm" if spacing else ""
    return Montage(window, words, rows)


def _row(
    row: pictures.MontageRow,
    window: tuple[float, float],
    spacing: tuple[float, float, float] | None,
) -> MontageRow:
    from .figures import Picture, data_uri

    title, items = row.title, row.items
    if not items:
        return MontageRow(title, None, "missing: no volume was generated")
    spacing = spacing or _common_spacing(items[:MAX_COLUMNS])
    columns = [_column(item, window, spacing) for item in items[:MAX_COLUMNS]]
    if not any(column.planes for column in columns):
        reasons = ", ".join(dict.fromkeys(column.absent for column in columns))
        return MontageRow(title, None, f"no volume to show of {len(items)}: {reasons}")
    shown = ", ".join(column.title + (f" ({column.absent})" if column.absent else "") for column in columns)
    alt = f"{title}: axial, coronal and sagittal mid planes of {len(columns)} volumes ({shown})"
    note = f"{MAX_COLUMNS} of {len(items)} volumes shown" if len(items) > MAX_COLUMNS else ""
    return MontageRow(title, Picture(data_uri(_png(columns)), alt), note)


def _column(
    item: pictures.MontageItem,
    window: tuple[float, float],
    spacing: tuple[float, float, float] | None,
) -> Column:
    return Column(pictures.short_id(item.id), *shown(item, spacing, window))


def _common_spacing(items: Sequence[pictures.MontageItem]) -> tuple[float, float, float] | None:
    """The voxel size of a row: files that do not state one are drawn with that of the first file that does."""
    paths = [Path(item.path) for item in items if item.path]
    known = [read_planes(path).spacing for path in paths if path.exists()]
    stated = [spacing for spacing in known if spacing is not None]
    return stated[0] if stated and len(stated) < len(paths) else None


def _png(columns: Sequence[Column]) -> bytes:
    """Planes in rows, volumes in columns, all at one scale; white on black."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, heights, scale = _layout(columns)
    letter = width / 15  # pixels: text keeps its size beside the volumes, whatever their resolution
    gap, band = 2.1 * letter, 1.6 * letter  # the letters of the sides are between panels, so that they cover nothing
    total = (band + gap / 2 + len(columns) * (width + gap), band + gap / 2 + sum(heights) + gap * len(heights))
    figure = Figure(figsize=(total[0] / 100, total[1] / 100), dpi=100, facecolor="black")
    FigureCanvasAgg(figure)
    for number, column in enumerate(columns):
        left, top = band + gap / 2 + number * (width + gap), total[1] - band - gap / 2
        _write(figure, (left + width / 2, total[1] - band / 2), total, _shorten(column.title), letter)
        if not column.planes:
            _write(figure, (left + width / 2, top - heights[0] / 2), total, column.absent, letter)
        for row, height in enumerate(heights):
            if number == 0:
                _write(figure, (band / 2, top - height / 2), total, NAMES[row], letter, rotation=90)
            if column.planes:
                _panel(figure, column.planes[row], (left, top - height, width, height), scale, total)
            top -= height + gap
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, facecolor="black", metadata={"Software": None})
    return buffer.getvalue()


def _layout(columns: Sequence[Column]) -> tuple[int, list[int], float]:
    """Width of a column and height of each row in pixels, and pixels per mm."""
    planes = [plane for column in columns for plane in column.planes]
    widest = max(plane.size[0] for plane in planes)
    width = min(max(4 * max(plane.grey.shape[1] for plane in planes), 256), 512)
    tallest = [max(c.planes[row].size[1] for c in columns if c.planes) for row in range(len(NAMES))]
    scale = width / widest
    return width, [max(round(height * scale), 24) for height in tallest], scale


def _panel(
    figure: Figure,
    plane: Plane,
    box: tuple[float, float, float, float],
    scale: float,
    total: tuple[float, float],
) -> None:
    left, bottom, width, height = box
    w, h = plane.size[0] * scale, plane.size[1] * scale
    x, y = left + (width - w) / 2, bottom + (height - h) / 2
    axes = figure.add_axes((x / total[0], y / total[1], w / total[0], h / total[1]))
    axes.imshow(plane.grey, cmap="gray", vmin=0, vmax=255, aspect="auto", interpolation="nearest")
    axes.set_axis_off()
    letter = width / 17
    aside = 0.65 * letter
    places = ((-aside, h / 2), (w + aside, h / 2), (w / 2, h + aside), (w / 2, -aside))
    for side, (dx, dy) in zip(plane.sides, places, strict=True):
        _write(figure, (x + dx, y + dy), total, side, letter, colour="#ffd75e")


def _write(
    figure: Figure,
    place: tuple[float, float],
    total: tuple[float, float],
    text: str,
    size: float,
    rotation: float = 0,
    colour: str = "#e4e4e4",
) -> None:
    """Text of `size` pixels centred at a position in pixels; never parsed as mathematics, for any case name."""
    from matplotlib.patheffects import withStroke

    figure.text(
        place[0] / total[0],
        place[1] / total[1],
        text,
        ha="center",
        va="center",
        rotation=rotation,
        color=colour,
        fontsize=0.72 * size,  # points at 100 dpi
        parse_math=False,
        path_effects=[withStroke(linewidth=size / 14, foreground="black")],
    )


def _shorten(text: str, most: int = 24) -> str:
    return text if len(text) <= most else f"{text[: most // 2 - 1]}...{text[-(most // 2 - 2) :]}"
