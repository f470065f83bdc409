"""Several samples of each contestant, axial (the paper's Fig. A2)."""

from __future__ import annotations

from collections.abc import Iterator

from medlord_bench.drawing.files import Drawn, Value
from medlord_bench.drawing.slices import shown
from medlord_bench.results.pictures import short_id
from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import RunResults

from .panels import Band, Cell, panels, width_for
from .volumes import REAL, rows_of, window_text

ROWS, MOST = 6, 6  # contestants on a page, below the real volumes, samples of each
COLUMNS = ("contestant", "place", "item", "window_low", "window_high", "state")


def samples(run: RunResults, options: ReportOptions) -> Iterator[Drawn]:
    """The samples that the run folder has pictures of: the first by index."""
    found = rows_of(run, "samples", options)
    if run.montage is None or not found:
        return
    real = rows_of(run, "images", options)[:1]
    columns = min(max(len(row.items) for row in (*real, *found)), MOST)
    note = (
        f"{window_text(run.montage.window)} Axial mid planes of the first samples by index: each is an independent "
        "random draw, and none was chosen by its looks."
    )
    for page in range(0, len(found), ROWS):
        bands: list[Band] = []
        rows: list[list[Value]] = []
        for row in (*real, *found[page : page + ROWS]):
            name = REAL if row.kind == "images" else row.contestant
            cells = []
            for place, item in enumerate(row.items[:columns]):
                planes, absent = shown(item, run.montage.spacing, run.montage.window)
                cells.append(Cell(planes[0] if planes else None, absent))
                rows.append([name, place, short_id(item.id), *run.montage.window, absent or "shown"])
            bands.append(Band((name,), [*cells, *[Cell(None, "not there")] * (columns - len(cells))]))
        name = "samples" if page == 0 else f"samples-{page // ROWS + 1}"
        yield Drawn(
            name, panels(bands, [str(place + 1) for place in range(columns)], note, width_for(columns)), COLUMNS, rows
        )
