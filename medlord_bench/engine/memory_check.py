"""The memory check before a run starts: which steps would exceed the limit, and which change makes them fit."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medlord_bench.engine.memory_forecast import WHOLE_GENERATOR, Forecast, forecast
from medlord_bench.engine.plan import Plan, Step
from medlord_bench.engine.steps.kinds import KINDS
from medlord_bench.errors import MemoryBudgetError
from medlord_bench.memory.budget import usable_gib
from medlord_bench.memory.measured import FORECAST
from medlord_bench.util.files import write_json

log = logging.getLogger("medlord_bench")


def foresee(plan: Plan, todo: Iterable[Step], budget: float, batch: int, device: str) -> dict[str, Forecast]:
    """Step id -> the phase with the highest need, for the steps of `todo` in which a generator works.

    A contestant with loaded weights is left out: their architecture is known only when they are read.
    """
    found: dict[str, Forecast] = {}
    steps = list(todo)
    for contestant in plan.contestants:
        own = {
            step.id: during
            for step in steps
            if step.contestant == contestant.name and (during := KINDS[step.kind].during(step))
        }
        if not own or contestant.weights is not None:
            continue
        for one in forecast(contestant, plan.protocol, budget, batch, during=set(own.values()), device=device):
            for id, during in own.items():
                if one.during in (during, WHOLE_GENERATOR) and _more(one, found.get(id)):
                    found[id] = one
    return found


def _more(one: Forecast, other: Forecast | None) -> bool:
    """Whether `one` is the better forecast of a step's need: a number before none, the larger number first."""
    if other is None or one.need is None:
        return other is None
    return other.need is None or one.need.total > other.need.total


def check(plan: Plan, todo: Iterable[Step], budget: float, batch: int, device: str, folder: Path) -> None:
    """Write `forecast.json` into the run folder. Raises `MemoryBudgetError` for a step that cannot fit."""
    found = foresee(plan, todo, budget, batch, device)
    rows = {id: _row(one) for id, one in found.items() if one.need is not None}
    write_json(folder / FORECAST, {"budget_gib": budget, "steps": rows})
    for contestant, reason in {(one.contestant, one.reason) for one in found.values() if one.need is None}:
        log.warning("%s: memory not predictable (%s); limited to %g GiB", contestant, reason, budget)
    for id, one in found.items():
        if not one.fits:
            raise MemoryBudgetError(f"step {id}: {refusal(one)}; or override with --no-memory-check")


def refusal(one: Forecast) -> str:
    """Why a phase does not fit, and the change that makes it fit."""
    assert one.need is not None and one.budget is not None
    advice = one.advice or "no known change makes it fit: use a smaller grid, or a larger card and --memory-limit"
    usable = f"{usable_gib(one.budget):.4g} of {one.budget:g} GiB are usable"
    needs = f"{one.name} needs {one.need.total:.2f} GiB, but {usable}"
    return f"{needs}; {advice}"


def _row(one: Forecast) -> dict[str, Any]:
    assert one.need is not None
    return {
        "stage": one.name,
        "allocated_gib": round(one.need.allocated, 3),
        "workspace_gib": round(one.need.workspace, 3),
        "total_gib": round(one.need.total, 3),
        "advice": None if one.advice is None else str(one.advice),
    }
