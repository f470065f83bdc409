"""What a contestant will need before any of its work is done, and what would make it fit."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from medlord_bench.contracts import DataProtocol, Rehearsable, Rehearsal, Run, Saving, registry, specs, validation
from medlord_bench.contracts.specs import Contestant
from medlord_bench.errors import UserError
from medlord_bench.memory.budget import CONTEXT_GIB, GIB, context_gib, total_gib, usable_gib
from medlord_bench.memory.rehearsal import NotPredictable, rehearse
from medlord_bench.memory.tracker import Made
from medlord_bench.util.progress import SilentProgress

log = logging.getLogger("medlord_bench")

TIMES = 2  # at the second training step the optimiser has its state
ANY = ""  # `Forecast.during` of a generator that cannot be rehearsed at all


@dataclass(frozen=True)
class Need:
    """What a stretch of work takes, in GiB. allocated: its tensors at the peak. workspace: the allowance for what
    operators take inside themselves. largest: what makes the peak. context: of the process beside its tensors."""

    allocated: float
    workspace: float
    largest: tuple[Made, ...] = ()
    context: float = CONTEXT_GIB

    @property
    def total(self) -> float:
        """What the card must provide, by the one rule (`budget.total_gib`)."""
        return total_gib(self.allocated, self.workspace, self.context)


@dataclass(frozen=True)
class Advice:
    """The cheapest change that makes a stretch fit: settings to add to the command line, what they cost, the need."""

    sets: Mapping[str, Any]
    cost: str
    need: Need

    def __str__(self) -> str:
        options = " ".join(f"--set {path}={_written(value)}" for path, value in self.sets.items())
        return f"{options} brings it to {self.need.total:.2f} GiB ({self.cost})"


@dataclass(frozen=True)
class Forecast:
    """One stretch of a contestant's work. need: None where it cannot be told, and `reason` says why.

    advice: where it does not fit; None there too when no known change makes it fit.
    """

    contestant: str
    name: str
    during: str
    need: Need | None
    reason: str = ""
    budget: float | None = None
    advice: Advice | None = None

    @property
    def fits(self) -> bool:
        """Whether it keeps within what a card of `budget` GiB gives; true where there is no budget or no number."""
        return self.need is None or self.budget is None or self.need.total <= usable_gib(self.budget)


def forecast(
    contestant: Contestant,
    data: DataProtocol,
    budget: float | None,
    batch: int = 1,
    stages: Sequence[str] = (),
    during: Collection[str] = (),
    device: str = "cuda",
) -> Iterator[Forecast]:
    """Each stretch of a contestant's work on a card of `budget` GiB (None: no verdict), as it is worked out.

    stages: names of stretches to look at, and during: training stages and purposes; none for all. device: on "cpu" the
    process itself takes more, and the tensors are counted as if they lay on a card. Raises `UserError` for a name that
    there is not, and for data that the generator refuses: numbers for a grid that it cannot take would mean nothing.
    """
    made = specs.make("generators", contestant)
    generator = made if isinstance(made, Rehearsable) else None
    if generator is None:
        reason = f"generator {contestant.plugin} has no rehearsal"
        yield Forecast(contestant.label, "all", ANY, None, reason, budget)
        return
    made.check(data)
    found = list(generator.rehearsals(data))
    for name in stages:
        if name not in (known := [rehearsal.name for rehearsal in found]):
            raise UserError(f"--stage {name}: {registry.unknown('stage', name, known)}")
    for rehearsal in found:
        if (stages and rehearsal.name not in stages) or (during and rehearsal.during not in during):
            continue
        one = _forecast(contestant.label, rehearsal, budget, batch, device)
        if not one.fits:
            one = replace(one, advice=_advice(contestant, generator, data, one, batch, device))
        yield one


def _forecast(label: str, rehearsal: Rehearsal, budget: float | None, batch: int, device: str) -> Forecast:
    try:
        need, reason = _need(rehearsal, batch, device), ""
    except NotPredictable as error:
        need, reason = None, str(error)
    return Forecast(label, rehearsal.name, rehearsal.during, need, reason, budget)


def _need(rehearsal: Rehearsal, batch: int, device: str) -> Need:
    run = Run("cpu", seed=0, progress=SilentProgress(), log=log, scratch=Path("rehearsal"), batch=batch)
    peak = rehearse(partial(rehearsal.act, run, TIMES))
    return Need(peak.allocated / GIB, peak.workspace / GIB, peak.largest, context_gib(device))


def _advice(
    contestant: Contestant, generator: Rehearsable, data: DataProtocol, made: Forecast, batch: int, device: str
) -> Advice | None:
    """The first change alone that makes it fit, else the first few together."""
    savings = generator.savings(made.during)
    together = [_together(savings[: count + 1]) for count in range(1, len(savings))]
    for saving in [*savings, *together]:
        sets = {f"{contestant.plugin}.{path}": value for path, value in saving.sets.items()}
        over = validation.nested(sets, contestant.plugin)
        changed = contestant.model_copy(update={"config": validation.merged(contestant.config, over)})
        rehearsals = specs.make("generators", changed).rehearsals(data)
        again = next((rehearsal for rehearsal in rehearsals if rehearsal.name == made.name), None)
        if again is None:
            continue
        tried = _forecast(made.contestant, again, made.budget, batch, device)
        if tried.need is not None and tried.fits:
            return Advice(sets, saving.cost, tried.need)
    return None


def _together(savings: Sequence[Saving]) -> Saving:
    sets = {path: value for saving in savings for path, value in saving.sets.items()}
    return Saving(sets, "; ".join(dict.fromkeys(saving.cost for saving in savings)))


def _written(value: Any) -> str:
    """A value as `--set` reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
