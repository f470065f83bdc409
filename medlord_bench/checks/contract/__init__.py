"""Contract checks: the checks of `medlord-bench check KIND NAME` for any plugin, built-in or third-party."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module

from medlord_bench.contracts import Run, registry
from medlord_bench.errors import UserError

KINDS = ("generators", "datasets", "metrics", "extractors", "segmenters", "reports")


@dataclass(frozen=True)
class Check:
    """One finding: what was checked, whether it holds, and the observed value."""

    name: str
    ok: bool
    detail: str = ""


Checks = Callable[[str, Run], Iterator[Check]]


def check(kind: str, name: str, run: Run) -> Iterator[Check]:
    """Every check of a kind on one plugin, one by one. Files go below `run.scratch`."""
    if kind not in KINDS:
        raise UserError(registry.unknown("kind to check", kind, KINDS))
    registry.load(kind, name)  # an unknown name, or a plugin that cannot be imported, raises before any finding
    checks: Checks = import_module(f"medlord_bench.checks.contract.{kind}").check
    try:
        yield from checks(name, run)
    except UserError:
        raise
    except Exception as error:
        yield Check("runs without an unexpected error", False, f"{type(error).__name__}: {error}")
