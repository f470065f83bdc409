"""A reading study's answers (the paper's Fig. 4)."""

from __future__ import annotations

from collections.abc import Iterator

from medlord_bench.drawing.files import Drawn
from medlord_bench.drawing.ratings import ratings as draw
from medlord_bench.results.ratings import read_ratings
from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import RunResults

from .volumes import ordered


def ratings(run: RunResults, options: ReportOptions) -> Iterator[Drawn]:
    """As `drawing.ratings.ratings`, of all runs of a report; nothing without ratings."""
    return draw([one for origin in run.origins for one in read_ratings(origin.folder / "results")], ordered(run))
