"""A run spec to ordered steps with keys and dependencies; each kind of step plans its own (`steps`).

Each step's key is the sha256 of everything that changes its output and of nothing else (docs/architecture.md, "Keys").
The key of a step whose items are addressed by index or case excludes the list of items, so a larger request adds
items; only `scores` include the list. A training's `lineage` excludes its budget, so a larger budget resumes it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from medlord_bench.contracts import (
    Dependencies,
    HasNativeGrid,
    HasOverlaps,
    HasPretraining,
    HasUnknownPatients,
    Purpose,
    Stage,
    registry,
    specs,
)
from medlord_bench.contracts.inventory import HasInventory, Inventory
from medlord_bench.contracts.metrics import quantities_of
from medlord_bench.contracts.results import SeenInPretraining
from medlord_bench.contracts.specs import Contestant
from medlord_bench.engine import keys
from medlord_bench.engine.plan import Native, Plan
from medlord_bench.engine.planning import Entrant, Planning
from medlord_bench.engine.resolve import RunSpec
from medlord_bench.engine.steps import conditional, images, reconstructions, samples, scores, select, weights
from medlord_bench.errors import UserError
from medlord_bench.util.hashing import digest

log = logging.getLogger("medlord_bench")

WORKING_BYTES = 4  # of a voxel while it is worked on, as float32
OUTPUTS = {"sample": samples, "sample-conditional": conditional, "reconstruct": reconstructions}


def seen_in_pretraining(generator: Any, dataset: Any, name: str) -> SeenInPretraining | None:
    """Which data sets, if a generator's published weights were trained on cases of the data set; None if not.

    Weights that a user names with `--weights` have no known history.
    """
    trained = [one.lower() for one in generator.pretrained_on] if isinstance(generator, HasPretraining) else []
    if name.lower() in trained:
        return SeenInPretraining(trained_on=(name,), data_set=name, relation="same")
    overlaps = [one.lower() for one in dataset.overlaps] if isinstance(dataset, HasOverlaps) else []
    shared = [one for one in trained if one in overlaps]
    if not shared:
        return None
    return SeenInPretraining(trained_on=tuple(shared), data_set=name, relation="shares cases")


class Planner:
    """Builds the steps of one run, in order; contestants share equal steps."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec, self.planning = spec, Planning(spec)
        self.native: dict[str, Native] = {}
        self.seen: dict[str, SeenInPretraining] = {}
        self.samples_of: dict[str, Inventory] = {}

    def plan(self) -> Plan:
        planning = self.planning
        # Before any work: two metrics that give one name to different numbers cannot be in one run.
        quantities_of({one.plugin: registry.load("metrics", one.plugin) for one in self.spec.metrics})
        _check_grid(planning)
        _check_splits(planning)
        images.plan(planning)
        for contestant in self.spec.contestants:
            self._contestant(contestant)
        steps = tuple(planning.steps.values())
        return Plan(
            run_key=digest([[step.id, step.key, list(step.items)] for step in steps]),
            dataset=self.spec.dataset,
            protocol=planning.protocol,
            splits=planning.splits,
            patients=planning.patients,
            contestants=self.spec.contestants,
            native=self.native,
            seen_in_pretraining=self.seen,
            patients_unknown=planning.dataset.patients_unknown
            if isinstance(planning.dataset, HasUnknownPatients)
            else "",
            reference="" if planning.reference is None else planning.reference.sha256,
            train_steps=self.spec.train_steps,
            train_hours=self.spec.train_hours,
            inventory=_inventory(planning.dataset),
            samples_of=self.samples_of,
            steps=steps,
        )

    def _contestant(self, contestant: Contestant) -> None:
        protocol, generator = self.planning.protocol, specs.make("generators", contestant)
        if self.planning.reference is not None and generator.stages():
            raise UserError(
                f"generator {contestant.name}: reads training cases, and {self.planning.reference.path} has none; expected "
                "samples in a folder: medlord-bench evaluate --reference FILE --synthetic DIR"
            )
        if contestant.weights is not None and (not generator.stages() or getattr(generator, "control", False)):
            raise UserError(
                f"--weights {contestant.weights}: generator {contestant.name} takes no weights; expected a generator that is "
                "trained: remove --weights, or give the others a run of their own"
            )
        if contestant.weights is None:  # loaded weights have their own architecture, checked on loading
            generator.check(protocol)
            if isinstance(generator, HasNativeGrid):
                grid, fit = generator.native(protocol.grid)
                self.native[contestant.name] = Native(grid=grid, fit=fit)
        if seen := seen_in_pretraining(generator, self.planning.dataset, protocol.name):
            self.seen[contestant.name] = seen
        if isinstance(generator, HasInventory):
            self.samples_of[contestant.name] = generator.inventory()
        purposes = self._purposes(contestant, generator)
        dependencies = [generator.dependencies(purpose) for purpose in purposes]
        entrant = _entrant(contestant, generator, [*generator.stages(), *dependencies])
        self._stages(entrant, _with_needs(generator.stages(), {name for one in dependencies for name in one.stages}))
        for purpose in purposes:
            OUTPUTS[purpose].plan(self.planning, entrant)
        for metric in self.spec.metrics:
            scores.plan(self.planning, entrant, metric)

    def _stages(self, entrant: Entrant, stages: list[Stage]) -> None:
        """The trainings, each with its part of the budget, and the checkpoint selection if there is one."""
        if entrant.contestant.weights is not None:  # loaded weights need no selection
            stages = [replace(stage, choice=None) for stage in stages]
        share = self._shares(stages, set(entrant.generator.dependencies("sample").stages))
        if self.spec.train_steps is not None:
            steps = {name: round(part * self.spec.train_steps) for name, part in share.items()}
            stages = [replace(stage, steps=steps.get(stage.name, stage.steps)) for stage in stages]
        entrant.chosen |= {stage.name for stage in stages if stage.choice is not None}
        for stage in stages:
            hours = self.spec.train_hours if stage.name in share else None
            weights.plan(self.planning, entrant, stage, None if hours is None else share[stage.name] * 3600 * hours)
            if stage.choice is not None:
                select.plan(self.planning, entrant, stage, stage.choice)

    def _shares(self, stages: list[Stage], sampling: set[str]) -> dict[str, float]:
        """The part of a budget for each iterating stage, in the proportions of the preset's steps.

        A stage that only conditional samples read does not reduce the others' parts: its part is added in proportion.
        """
        needed = {stage.name for stage in _with_needs(stages, sampling & {stage.name for stage in stages})}
        preset = sum(stage.steps or 0 for stage in stages if stage.name in needed)
        return {stage.name: stage.steps / preset for stage in stages if stage.steps is not None and preset}

    def _purposes(self, contestant: Contestant, generator: Any) -> list[Purpose]:
        capabilities = generator.capabilities
        purposes: list[Purpose] = []
        if "unconditional" in capabilities and self.spec.samples:
            purposes.append("sample")
        if "conditional" in capabilities and self.spec.conditional and self.planning.protocol.condition_regions:
            purposes.append("sample-conditional")
        if "reconstructs" in capabilities:
            purposes.append("reconstruct")
        if not purposes:
            raise UserError(
                f"generator {contestant.name}: nothing to do; it supports {sorted(capabilities)}, give --samples"
            )
        return purposes


def _check_grid(planning: Planning) -> None:
    """Raise `UserError` if one volume on the grid is larger than the machine's memory, before anything is allocated."""
    import psutil

    shape = planning.protocol.grid.shape
    needed, there = math.prod(shape) * WORKING_BYTES, psutil.virtual_memory().total
    if needed > there:
        raise UserError(
            f"data set {planning.protocol.name}: its grid of {' x '.join(map(str, shape))} voxels takes {needed / 2**30:.3g} GiB "
            f"a volume; expected less than the memory of this machine, {there / 2**30:.3g} GiB: choose a smaller dataset.shape"
        )


def _check_splits(planning: Planning) -> None:
    """Raise `UserError` if there is nothing to train on or nothing to measure against."""
    for split in ("train", "test"):
        if planning.reference is None and not planning.splits[split]:
            raise UserError(
                f"data set {planning.protocol.name}: split {split!r} has no case; expected at least one: give it cases "
                f"(phantom: --set dataset.n_{split}=8; files: dataset.split)"
            )


def _entrant(contestant: Contestant, generator: Any, named: Sequence[Stage | Dependencies]) -> Entrant:
    every = keys.settings(specs.configuration("generators", contestant))
    return Entrant(contestant, generator, keys.unnamed(every, (field for one in named for field in one.fields)))


def _with_needs(stages: Sequence[Stage], wanted: set[str]) -> list[Stage]:
    """The wanted stages and their dependencies, in order."""
    by_name = {stage.name: stage for stage in stages}
    todo, found = list(wanted), set()
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += by_name[name].needs
    return [stage for stage in stages if stage.name in found]


def build(spec: RunSpec) -> Plan:
    """The plan of a run. Finds the data set's cases (raises `MissingError` if they are missing), and logs what it takes of
    its folder."""
    plan = Planner(spec).plan()
    for inventory in (*([plan.inventory] if plan.inventory else []), *plan.samples_of.values()):
        for line in inventory.lines():
            log.info("%s", line)
        for warning in inventory.warnings:
            log.warning("%s", warning)
    return plan


def _inventory(dataset: Any) -> Inventory | None:
    return dataset.inventory() if isinstance(dataset, HasInventory) else None
