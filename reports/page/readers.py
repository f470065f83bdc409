"""What readers answered: the figure of all questions, and how often each source was called real."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from medlord_bench.results.ratings import REAL, Rating, read_ratings
from medlord_bench.results.run_results import RunResults

from .figures import Picture, data_uri

WIDTH_DPI = 200


@dataclass(frozen=True)
class Called:
    """How often a reader called a source real, with Wilson's interval, in per cent."""

    reader: str
    source: str
    count: int
    n: int
    low: float
    high: float


@dataclass(frozen=True)
class Readers:
    figures: Sequence[Picture]
    called: Sequence[Called]
    counts: Sequence[Rating]


def readers(run: RunResults) -> Readers | None:
    """None without `results/ratings.csv`."""
    from medlord_bench import stats
    from medlord_bench.drawing.ratings import ratings
    from medlord_bench.drawing.style import style

    found = [one for origin in run.origins for one in read_ratings(origin.folder / "results")]
    if not found:
        return None
    names = [*run.ranked, *(name for name in run.contestants if name not in run.ranked)]
    pictures = []
    with style():
        for drawn in ratings(found, names):
            buffer = io.BytesIO()
            drawn.figure.savefig(buffer, format="png", dpi=WIDTH_DPI, metadata={"Software": None})
            pictures.append(
                Picture(data_uri(buffer.getvalue()), "Answers of readers by question and source; in the table below")
            )
    verdicts = [one for one in found if one.role == "verdict" and one.level == 1]
    verdicts.sort(key=lambda one: (one.reader, one.source != REAL))
    called = [
        Called(one.reader, one.source, one.count, one.n, *(100 * end for end in stats.wilson(one.count, one.n)))
        for one in verdicts
    ]
    return Readers(pictures, called, found)
