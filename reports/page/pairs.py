"""The samples most similar to a training image, each beside that image, to judge the audit's number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medlord_bench.engine.run_results import picture_path

from .montage import MontageRow, draw_montage

if TYPE_CHECKING:
    from medlord_bench.contracts.results import CaseRow, Score
    from medlord_bench.engine.run_results import RunResults

    from .figures import FigureFolder

# Case rows of the audit (see metrics/memorisation): a sample against the nearest training item, the nearest pair first.
PAIR, RELATIVE = "copy_pair", "relative_distance"
RATE = "copy_rate"  # the score of these rows: its notes contain the threshold and the nominal rate
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
    """The nearest pairs of every contestant, those with a warning first; nothing if no audit ran."""
    scores = run.results.scores if run.results else ()
    rates = {score.generator: score for score in scores if score.metric == RATE and score.status == "ok"}
    apart = {(row.generator, row.case, row.against): row.value for row in run.rows if row.metric == RELATIVE}
    found: dict[str, list[CaseRow]] = {}
    for row in run.rows:
        if row.metric == PAIR:
            found.setdefault(row.generator, []).append(row)
    described = {key: (run.montage or {}).get(key) for key in ("window", "spacing")}
    drawn = []
    for name, pairs in sorted(found.items(), key=lambda one: not (one[0] in rates and rates[one[0]].warning)):
        shown = WARNED if name in rates and rates[name].warning else QUIET
        rows = [
            {"file": f"nearest-{name}-{place}", **_row(pair, apart.get((name, pair.case, pair.against)))}
            for place, pair in enumerate(pairs[:shown], 1)
        ]
        drawn.append(Pairs(name, rates.get(name), draw_montage({**described, "rows": rows}, folder, figures).rows))
    return drawn


def _row(pair: CaseRow, relative: float | None) -> dict[str, object]:
    """A row of a montage: the sample, then the training image."""
    apart = "" if relative is None else f", relative distance {relative:.3g}"
    return {
        "title": f"{pair.case} beside the nearest training image: correlation {pair.value:.3f}{apart}",
        "items": [
            {"id": pair.case, "path": picture_path("samples", pair.generator, pair.case)},
            {"id": pair.against, "path": picture_path("images", "real", pair.against)},
        ],
    }
