"""Random samples in three planes, a row per contestant below a real volume (the paper's Fig. 2)."""

from __future__ import annotations

from collections.abc import Iterator

from medlord_bench.drawing.files import Drawn, Value
from medlord_bench.drawing.slices import NAMES, shown
from medlord_bench.results.pictures import MontageRow, short_id
from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import RunResults

from .panels import Band, Cell, panels
from .volumes import REAL, draw, rows_of, window_text

MOST = 6  # contestants on a page, below the real volume
COLUMNS = ("contestant", "item", "drawn_from", "place", "seed", "window_low", "window_high", "state")


def montage(run: RunResults, options: ReportOptions) -> Iterator[Drawn]:
    """Pages of up to six contestants, each with the same real volume on top."""
    samples = rows_of(run, "samples", options)
    if run.montage is None or not samples:
        return
    real = rows_of(run, "images", options)[:1]
    for page in range(0, len(samples), MOST):
        bands, rows = [], []
        for row in (*real, *samples[page : page + MOST]):
            band, record = _band(run, row, row in real)
            bands.append(band)
            rows.append(record)
        kept = max(len(row.items) for row in samples)
        note = (
            f"{window_text(run.montage.window)} One sample per contestant, drawn by lot with the run's seed among the "
            f"first {kept} samples, whose pictures the run folder keeps. Mid planes, radiological convention, all at one "
            "scale."
        )
        name = "montage" if page == 0 else f"montage-{page // MOST + 1}"
        yield Drawn(name, panels(bands, NAMES, note, 122), COLUMNS, rows)


def _band(run: RunResults, row: MontageRow, real: bool) -> tuple[Band, list[Value]]:
    assert run.montage is not None
    chosen = draw(run, row.contestant, row.items)
    planes, absent = shown(chosen.item, run.montage.spacing, run.montage.window)
    cells = [Cell(plane) for plane in planes] or [Cell(None, absent)] * len(NAMES)
    item = short_id(chosen.item.id)
    names = (REAL if real else row.contestant, item)
    record: list[Value] = [
        names[0],
        item,
        chosen.of,
        chosen.place,
        str(chosen.seed),
        *run.montage.window,
        absent or "shown",
    ]
    return Band(names, cells), record
