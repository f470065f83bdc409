"""The samples most similar to a training image, each beside that image, to judge the audit's number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medlord_bench.results.pictures import Montage, MontageItem, MontageRow

from .montage import MontageRow as DrawnRow
from .montage import draw_montage

if TYPE_CHECKING:
    from medlord_bench.contracts.metrics import Quantity
    from medlord_bench.contracts.results import CaseRow, Score
    from medlord_bench.results.run_results import RunResults


WARNED, QUIET = 6, 3  # pairs shown of a contestant with a warning, and without


@dataclass(frozen=True)
class Pairs:
    """The nearest pairs of a contestant. score: its copy rate, or None."""

    contestant: str
    score: Score | None
    rows: Sequence[DrawnRow]

    @property
    def warned(self) -> bool:
        return bool(self.score and self.score.warning)


def draw_pairs(run: RunResults) -> list[Pairs]:
    """The nearest pairs of every contestant, those with a warning first; none if no metric of the run gives pairs."""
    drawn: list[Pairs] = []
    for quantity in run.quantities.values():
        if quantity.pairs:
            drawn += _of_quantity(quantity, run)
    return sorted(drawn, key=lambda one: not one.warned)


def _of_quantity(quantity: Quantity, run: RunResults) -> Iterator[Pairs]:
    rates = {score.generator: score for score in run.scores if score.metric == quantity.name and score.status == "ok"}
    found: dict[str, list[CaseRow]] = {}
    values: dict[tuple[str, str, str], list[str]] = {}
    for row in run.rows:
        if row.metric == quantity.pairs:
            found.setdefault(row.generator, []).append(row)
        elif row.against:
            text = f"{row.metric.replace('_', ' ')} {row.value:.3g}"
            values.setdefault((row.generator, row.case, row.against), []).append(text)
    for name, pairs in found.items():
        shown = WARNED if name in rates and rates[name].warning else QUIET
        rows = [_row(run, pair, values.get((name, pair.case, pair.against), [])) for pair in pairs[:shown]]
        montage = (run.montage or Montage()).model_copy(update={"rows": tuple(rows)})
        yield Pairs(name, rates.get(name), draw_montage(montage).rows)


def _row(run: RunResults, pair: CaseRow, values: Sequence[str]) -> MontageRow:
    """A row of a montage: the case, then what it is compared with. values: of the pair, in words."""
    case = run.picture(pair.generator, "samples", pair.case)
    nearest = run.picture(pair.generator, "images", pair.against, real=True)
    return MontageRow(
        title=" ".join(filter(None, (pair.case, "beside", pair.region and f"{pair.region} of", pair.against)))
        + (f": {', '.join(values)}" if values else ""),
        items=(MontageItem(id=pair.case, path=str(case)), MontageItem(id=pair.against, path=str(nearest))),
    )
