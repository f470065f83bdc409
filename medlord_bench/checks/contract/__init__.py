"""Contract checks: what `medlord-bench check KIND NAME` runs on any plugin, ours and a third party's alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module

from medlord_bench.contracts import Run, registry
from medlord_bench.errors import UserError

KINDS = ("generators", "datasets", "metrics", "extractors", "segmenters", "reports")


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, whether it holds, and what was seen."""

    name: str
    ok: bool
    detail: str = ""


Checks = Callable[[str, Run], Iterator[Check]]


def check(kind: str, name: str, run: Run) -> Iterator[Check]:
    """Every check of a kind on one plugin, as they are made. Files go below `run.scratch`."""
    if kind not in KINDS:
        raise UserError(registry.unknown("kind to check", kind, KINDS))
    registry.load(kind, name)  # an unknown name, or a plugin that cannot be imported, is said before any finding
    checks: Checks = import_module(f"medlord_bench.checks.contract.{kind}").check
    try:
        yield from checks(name, run)
    except UserError:
        raise
    except Exception as error:
        yield Check("runs without an unexpected error", False, f"{type(error).__name__}: {error}")
