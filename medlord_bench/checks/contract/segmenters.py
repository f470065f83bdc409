"""The contract of a segmenter."""

from __future__ import annotations

from collections.abc import Iterator

from medlord_bench.checks.contract import Check
from medlord_bench.checks.contract.common import configures, imports_nothing_heavy, version_of
from medlord_bench.contracts import Run, registry


def check(name: str, run: Run) -> Iterator[Check]:
    """Well-formed and quick to list; its own tests check its segmentations, since each needs its own weights."""
    yield imports_nothing_heavy("segmenters", name)
    plugin = registry.load("segmenters", name)
    yield version_of(plugin)
    yield from configures("segmenters", name)
    yield Check("can segment", callable(getattr(plugin, "segment", None)))
