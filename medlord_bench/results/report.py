"""What a report is, and writing all of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from medlord_bench.contracts import FrozenConfig, registry
from medlord_bench.errors import UserError
from medlord_bench.results.run_results import RunResults
from medlord_bench.results.share import shareable

FIRST = "page"  # the report whose file is named first


class ReportOptions(FrozenConfig):
    """What the user asks of reports.

    font: of figures. published: add the paper's own values to tables. planes: add single planes to tables. share: the run
    that reports get has nothing of the real patients (`share.py`).
    """

    font: str | None = None
    published: bool = False
    planes: bool = False
    share: bool = False


@runtime_checkable
class Report(Protocol):
    """Writes results. Pure: reads result files and pictures of the run folder; needs no torch, GPU or data set."""

    def render(self, run: RunResults, out: Path, options: ReportOptions) -> Sequence[Path]:
        """Write the report of a run, or of several merged ones, below `out`; returns the files, the entry page first.

        The same results give the same bytes.
        """
        ...


def write_reports(
    run: RunResults, out: Path, options: ReportOptions | None = None, only: Collection[str] = ()
) -> list[Path]:
    """Write the registered reports, or those named in `only`; returns the files, the page first."""
    reports = registry.loadable("reports")
    for name in only:
        if name not in reports:
            raise UserError(f"--only: {registry.unknown('report', name, reports)}")
    options = options or ReportOptions()
    run = shareable(run) if options.share else run
    wanted = sorted(set(only) or set(reports), key=lambda name: (name != FIRST, name))
    return [path for name in wanted for path in reports[name]().render(run, out, options)]
