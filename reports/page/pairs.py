"""The samples most similar to a training image, each beside that image, to judge the audit's number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medlord_bench.engine.run_results import picture_path

from .montage import MontageRow, draw_montage

if TYPE_CHECKING:
    from medlord_bench.contracts.metrics import Quantity
    from medlord_bench.contracts.results import CaseRow, Score
    from medlord_bench.engine.run_results import RunResults

    from .figures import FigureFolder

WARNED, QUIET = 6, 3  # pairs shown of a contestant with a warning, and without


@dataclass(frozen=True)
class Pairs:
    """The nearest pairs of a contestant. score: its copy rate, or None."""

    contestant: str
    score: Score | None
    rows: Sequence[MontageRow]

    @property
    def warned(self) -> bool:
        return bool(self.score and self.score.warning)


def draw_pairs(run: RunResults, folder: Path, figures: FigureFolder) -> list[Pairs]:
    """The nearest pairs of every contestant, those with a warning first; none if no metric of the run gives pairs."""
    drawn: list[Pairs] = []
    for quantity in run.results.quantities if run.results else ():
        if quantity.pairs:
            drawn += _of_quantity(quantity, run, folder, figures)
    return sorted(drawn, key=lambda one: not one.warned)


def _of_quantity(quantity: Quantity, run: RunResults, folder: Path, figures: FigureFolder) -> Iterator[Pairs]:
    scores = run.results.scores if run.results else ()
    rates = {score.generator: score for score in scores if score.metric == quantity.name and score.status == "ok"}
    found: dict[str, list[CaseRow]] = {}
    values: dict[tuple[str, str, str], list[str]] = {}
    for row in run.rows:
        if row.metric == quantity.pairs:
            found.setdefault(row.generator, []).append(row)
        elif row.against:
            text = f"{row.metric.replace('_', ' ')} {row.value:.3g}"
            values.setdefault((row.generator, row.case, row.against), []).append(text)
    described = {key: (run.montage or {}).get(key) for key in ("window", "spacing")}
    for name, pairs in found.items():
        shown = WARNED if name in rates and rates[name].warning else QUIET
        rows = [
            {"file": f"nearest-{name}-{place}", **_row(pair, values.get((name, pair.case, pair.against), []))}
            for place, pair in enumerate(pairs[:shown], 1)
        ]
        yield Pairs(name, rates.get(name), draw_montage({**described, "rows": rows}, folder, figures).rows)


def _row(pair: CaseRow, values: Sequence[str]) -> dict[str, object]:
    """A row of a montage: the case, then what it is compared with. values: of the pair, in words."""
    return {
        "title": f"{pair.case} beside {pair.against}" + (f": {', '.join(values)}" if values else ""),
        "items": [
            {"id": pair.case, "path": picture_path("samples", pair.generator, pair.case)},
            {"id": pair.against, "path": picture_path("images", "real", pair.against)},
        ],
    }
