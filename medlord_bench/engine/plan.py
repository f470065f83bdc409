"""`plan.json`: the ordered steps of a run with their keys and dependencies, and the names of items.

`planner.py` makes it from a run spec.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from medlord_bench.contracts import Case, DataProtocol, FitMode, FrozenConfig, Grid, Split, validation
from medlord_bench.contracts.inventory import Inventory
from medlord_bench.contracts.results import SeenInPretraining
from medlord_bench.contracts.specs import Contestant, PluginSpec
from medlord_bench.errors import UserError


class Step(FrozenConfig):
    """One step. contestant: its contestant; `planning.REAL` for steps on real images. inputs: role -> step id. items:
    the published items. detail: parameters of its kind."""

    id: str
    kind: str
    key: str
    plugin: PluginSpec
    contestant: str
    items: tuple[str, ...]
    inputs: dict[str, str] = {}
    detail: dict[str, Any] = {}
    seed: int = 0
    identity: dict[str, Any] = {}

    @property
    def needs(self) -> list[str]:
        """The steps that it reads: its inputs, and the images, which many open without naming them."""
        return [id for id in dict.fromkeys(("images", *self.inputs.values())) if id != self.id]


class Native(FrozenConfig):
    """The grid and window of a contestant if they differ from the protocol's, and the fit mode."""

    grid: Grid
    fit: FitMode


class Plan(FrozenConfig):
    """`plan.json`: everything a worker needs, in order. splits: split -> item ids of its cases.

    native: contestant -> its own grid, if it has one. seen_in_pretraining: contestant -> which data sets, if its
    published weights were trained on cases of this one. patients_unknown: why its patients are not known, if so. reference: sha256 of the reference file used instead of real volumes,
    if one does. train_steps, train_hours: the budget of each contestant. inventory: what the data set takes of its folder.
    samples_of: contestant -> what it takes of a folder of samples.
    """

    run_key: str
    dataset: PluginSpec
    protocol: DataProtocol
    splits: dict[Split, tuple[str, ...]]
    patients: dict[str, str]
    contestants: tuple[Contestant, ...]
    native: dict[str, Native] = {}
    seen_in_pretraining: dict[str, SeenInPretraining] = {}
    patients_unknown: str = ""
    reference: str = ""
    train_steps: int | None = None
    train_hours: float | None = None
    inventory: Inventory | None = None
    samples_of: dict[str, Inventory] = {}
    steps: tuple[Step, ...]

    def step(self, id: str) -> Step:
        return self._by_id[id]

    @cached_property
    def _by_id(self) -> dict[str, Step]:
        return {step.id: step for step in self.steps}


def item_id(case: Case) -> str:
    """A case's item: its id and the first digits of its content's hash, so that changed content is a new item."""
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in case.id)
    return f"{safe}-{case.sha256[:10]}"


def sample_id(index: int) -> str:
    return f"sample-{index:05d}"


def generated_name(step: Step, item: str) -> str:
    """The name of a generated volume for a segmenter: CONTESTANT/KIND/ITEM."""
    return f"{step.contestant}/{step.kind}/{item}"


def read_plan(run_folder: Path) -> Plan:
    """The plan of a run folder. Raises `UserError` if there is none."""
    path = run_folder / "plan.json"
    try:
        return validation.read_json(Plan, path)
    except FileNotFoundError:
        raise UserError(f"{run_folder}: not a run folder (no plan.json); see medlord-bench status") from None
