"""The contract of a report."""

from __future__ import annotations

from collections.abc import Iterator

from medlord_bench.checks.contract import Check
from medlord_bench.checks.contract.common import imports_nothing_heavy
from medlord_bench.contracts import Run, registry
from medlord_bench.results.report import Report


def check(name: str, run: Run) -> Iterator[Check]:
    """Quick to list, made without arguments, renders."""
    yield imports_nothing_heavy("reports", name)
    yield Check("fulfils results.report.Report", isinstance(registry.load("reports", name)(), Report))
