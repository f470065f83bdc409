"""Which volumes the figures show: drawn by a recorded seed among the pictures that the run folder has."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from medlord_bench.errors import UserError
from medlord_bench.results.pictures import MontageItem, MontageRow
from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import RunResults
from medlord_bench.util.documents import parse_yaml
from medlord_bench.util.seeds import derive

REAL = "real"


@dataclass(frozen=True)
class Lot:
    """A volume that was drawn by lot among `of`. seed: what the draw was made with."""

    item: MontageItem
    place: int
    of: int
    seed: int


def run_seed(run: RunResults, contestant: str) -> int:
    """The seed of the run that a contestant is from, 0 if its run file is not there."""
    origin = next((one for one in run.origins if contestant in one.contestants), run.origins[0])
    try:
        found = parse_yaml(origin.config or "", "run.yaml")
    except UserError:
        return 0
    seed = found.get("seed", 0) if isinstance(found, dict) else 0
    return seed if isinstance(seed, int) else 0


def draw(run: RunResults, contestant: str, items: Sequence[MontageItem]) -> Lot:
    """One of the items, by the run's seed and the contestant; not by what it looks like."""
    seed = derive(run_seed(run, contestant), "figure", contestant)
    place = seed % len(items)
    return Lot(items[place], place, len(items), seed)


def rows_of(run: RunResults, kind: str, options: ReportOptions) -> list[MontageRow]:
    """The rows of a kind with volumes, in the order of the contestants, controls last; none that must not be shared."""
    rows = [row for row in run.montage.rows if row.kind == kind and row.items] if run.montage else []
    if options.share:
        if kind == "images" or run.results is None:
            return []
        rows = [row for row in rows if row.contestant in run.ranked]  # a control may pass on real volumes
    order = ordered(run)
    known = {name: place for place, name in enumerate(order)}
    return sorted(rows, key=lambda row: known.get(row.contestant, len(order)))


def ordered(run: RunResults) -> list[str]:
    """Contestants, then controls."""
    ranked: Collection[str] = run.ranked
    return [*ranked, *(name for name in run.contestants if name not in ranked)]


def window_text(window: tuple[float, float]) -> str:
    return f"Window {window[0]:g} to {window[1]:g} HU."
