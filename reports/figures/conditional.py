"""Conditional samples beside the real volume whose mask they were made for, with its contours (the paper's Fig. A1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medlord_bench.drawing.files import Drawn, Value
from medlord_bench.drawing.slices import NAMES, images, shown
from medlord_bench.drawing.style import plain
from medlord_bench.results.pictures import MontageItem, MontageRow, short_id
from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import RunResults
from medlord_bench.volumes.planes import read_planes

from .panels import Band, Cell, panels, width_for
from .volumes import REAL, draw, rows_of, window_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST = 4  # contestants on a page, beside the real volume
COLUMNS = ("contestant", "case", "plane", "region", "labels", "mask_pixels", "seed", "state")


def conditional(run: RunResults, options: ReportOptions) -> Iterator[Drawn]:
    """One test case, drawn by lot: a column per contestant, a row per plane."""
    made = rows_of(run, "conditional", options)
    if run.montage is None or not made:
        return
    chosen = draw(run, "conditional", made[0].items)
    case = chosen.item.id
    masks = [] if options.share else _masks(run, case)
    names = _regions(run.montage.regions, masks)
    for page in range(0, len(made), MOST):
        columns = made[page : page + MOST]
        shown_columns = [(row.contestant, _item(row, case)) for row in columns]
        if not options.share:
            shown_columns = [(REAL, _real(run, case)), *shown_columns]
        cells, rows = _cells(run, shown_columns, masks, "" if options.share else short_id(case), chosen.seed, names)
        bands = [Band((name,), [column[place] for column in cells]) for place, name in enumerate(NAMES)]
        note = f"{window_text(run.montage.window)} One test case, drawn by lot with the run's seed. " + (
            "Contours: the mask that the samples were made for." if masks else "No contours of the mask are shown."
        )
        name = "conditional" if page == 0 else f"conditional-{page // MOST + 1}"
        figure = panels(bands, [name for name, _ in shown_columns], note, width_for(len(shown_columns)), names)
        yield Drawn(name, figure, COLUMNS, rows)


def _cells(
    run: RunResults,
    columns: Sequence[tuple[str, MontageItem]],
    masks: Sequence[NDArray[Any]],
    case: str,
    seed: int,
    regions: Mapping[str, Sequence[int]],
) -> tuple[list[list[Cell]], list[list[Value]]]:
    import numpy as np

    assert run.montage is not None
    cells: list[list[Cell]] = []
    rows: list[list[Value]] = []
    for contestant, item in columns:
        planes, absent = shown(item, run.montage.spacing, run.montage.window)
        column = []
        for place, plane_name in enumerate(NAMES):
            plane = planes[place] if planes else None
            labels = masks[place] if masks else None
            fits = plane is not None and labels is not None and labels.shape == plane.grey.shape
            column.append(Cell(plane, absent, labels if fits else None))
            state = absent or "shown"
            if labels is None:
                rows.append([contestant, case, plane_name, "", None, None, str(seed), state])
            else:
                for name, values in regions.items():
                    count, told = int(np.isin(labels, values).sum()), " ".join(map(str, values))
                    rows.append([contestant, case, plane_name, name, told, count, str(seed), state])
        cells.append(column)
    return cells, rows


def _masks(run: RunResults, case: str) -> list[NDArray[Any]]:
    """The mid planes of the case's mask; none without its file."""
    path = run.picture(REAL, "masks", case, real=True)
    return list(images(read_planes(path))) if path.exists() else []


def _regions(known: Mapping[str, Sequence[int]], masks: Sequence[NDArray[Any]]) -> dict[str, Sequence[int]]:
    """Region -> its labels: those that samples are conditioned on, or all labels of masks whose names are not known."""
    import numpy as np

    values = {int(value) for plane in masks for value in np.unique(plane)} - {0}
    if not known:
        return {f"label {value}": (value,) for value in sorted(values)}
    return {plain(name): own for name, own in known.items() if values & set(own)}


def _real(run: RunResults, case: str) -> MontageItem:
    return MontageItem(id=case, path=str(run.picture(REAL, "images", case, real=True)))


def _item(row: MontageRow, case: str) -> MontageItem:
    return next((item for item in row.items if item.id == case), MontageItem(id=case, failed="not there"))
