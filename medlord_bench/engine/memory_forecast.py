"""The predicted memory of a contestant's work, and the changes that make it fit."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from medlord_bench.contracts import DataProtocol, DryRun, HasDryRuns, MemoryOption, Run, registry, specs, validation
from medlord_bench.contracts.specs import Contestant
from medlord_bench.errors import UserError
from medlord_bench.memory.budget import CONTEXT_GIB, GIB, context_gib, total_gib, usable_gib
from medlord_bench.memory.dry_run import NotPredictable, run_dry
from medlord_bench.memory.tracker import Made
from medlord_bench.util.progress import SilentProgress

log = logging.getLogger("medlord_bench")

TRAINING_STEPS = 2  # at the second training step the optimiser has its state
WHOLE_GENERATOR = ""  # `Forecast.during` of a generator without dry runs


@dataclass(frozen=True)
class Need:
    """The memory of a phase of work, in GiB. allocated: its tensors at the peak. workspace: the allowance for internal
    memory of operators. largest: the tensors at the peak. context: of the process beside its tensors."""

    allocated: float
    workspace: float
    largest: tuple[Made, ...] = ()
    context: float = CONTEXT_GIB

    @property
    def total(self) -> float:
        """The memory that the card must provide, by the rule (`budget.total_gib`)."""
        return total_gib(self.allocated, self.workspace, self.context)


@dataclass(frozen=True)
class Advice:
    """The cheapest change that makes a phase fit: settings to add to the command line, their cost, the new need."""

    sets: Mapping[str, Any]
    cost: str
    need: Need

    def __str__(self) -> str:
        options = " ".join(f"--set {path}={_written(value)}" for path, value in self.sets.items())
        return f"{options} reduces it to {self.need.total:.2f} GiB ({self.cost})"


@dataclass(frozen=True)
class Forecast:
    """One phase of a contestant's work. need: None if it cannot be predicted; `reason` says why.

    advice: the change that makes it fit; None if it fits or no known change does.
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
        """Whether it fits a card of `budget` GiB; true if there is no budget or no number."""
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
    """Each phase of a contestant's work on a card of `budget` GiB (None: no verdict), as soon as it is computed.

    stages: names of phases to predict, and during: training stages and purposes; none for all. device: on "cpu" the
    process itself takes more, and the tensors are counted as if they were on a card. Raises `UserError` for an unknown
    name, and for data that the generator refuses: numbers for a grid that it cannot take would be meaningless.
    """
    made = specs.make("generators", contestant)
    generator = made if isinstance(made, HasDryRuns) else None
    if generator is None:
        reason = f"generator {contestant.plugin} has no dry run"
        yield Forecast(contestant.name, "all", WHOLE_GENERATOR, None, reason, budget)
        return
    made.check(data)
    found = list(generator.dry_runs(data))
    for name in stages:
        if name not in (known := [dry_run.name for dry_run in found]):
            raise UserError(f"--stage {name}: {registry.unknown('stage', name, known)}")
    for dry_run in found:
        if (stages and dry_run.name not in stages) or (during and dry_run.during not in during):
            continue
        one = _forecast(contestant.name, dry_run, budget, batch, device)
        if not one.fits:
            one = replace(one, advice=_advice(contestant, generator, data, one, batch, device))
        yield one


def _forecast(contestant: str, dry_run: DryRun, budget: float | None, batch: int, device: str) -> Forecast:
    try:
        need, reason = _need(dry_run, batch, device), ""
    except NotPredictable as error:
        need, reason = None, str(error)
    return Forecast(contestant, dry_run.name, dry_run.during, need, reason, budget)


def _need(dry_run: DryRun, batch: int, device: str) -> Need:
    run = Run("cpu", seed=0, progress=SilentProgress(), log=log, scratch=Path("dry run"), batch=batch)
    peak = run_dry(partial(dry_run.workload, run, TRAINING_STEPS))
    return Need(peak.allocated / GIB, peak.workspace / GIB, peak.largest, context_gib(device))


def _advice(
    contestant: Contestant, generator: HasDryRuns, data: DataProtocol, made: Forecast, batch: int, device: str
) -> Advice | None:
    """The first single change that makes it fit, else the first few together."""
    memory_options = generator.memory_options(made.during)
    together = [_together(memory_options[: count + 1]) for count in range(1, len(memory_options))]
    for option in [*memory_options, *together]:
        sets = {f"{contestant.plugin}.{path}": value for path, value in option.sets.items()}
        over = validation.nested(sets, contestant.plugin)
        changed = contestant.model_copy(update={"config": validation.merged(contestant.config, over)})
        dry_runs = specs.make("generators", changed).dry_runs(data)
        again = next((dry_run for dry_run in dry_runs if dry_run.name == made.name), None)
        if again is None:
            continue
        tried = _forecast(made.contestant, again, made.budget, batch, device)
        if tried.need is not None and tried.fits:
            return Advice(sets, option.cost, tried.need)
    return None


def _together(memory_options: Sequence[MemoryOption]) -> MemoryOption:
    sets = {path: value for option in memory_options for path, value in option.sets.items()}
    return MemoryOption(sets, "; ".join(dict.fromkeys(option.cost for option in memory_options)))


def _written(value: Any) -> str:
    """A value as `--set` reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
