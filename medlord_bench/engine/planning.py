"""The state of planning a run: its data, and the steps planned so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medlord_bench.contracts import SPLITS, Case, DataProtocol, Dependencies, FrozenConfig, Split, Stage, specs
from medlord_bench.contracts.reference import reference_of
from medlord_bench.contracts.specs import Contestant, PluginSpec
from medlord_bench.engine import keys
from medlord_bench.engine.plan import Step, item_id
from medlord_bench.engine.resolve import RunSpec
from medlord_bench.util.hashing import digest

REAL = "real"  # `Step.contestant` of steps on real images


class Planning:
    """The data of a run and its steps by id, in order. A step that several contestants or metrics share is one step."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.dataset = specs.dataset(spec.dataset)
        self.protocol: DataProtocol = self.dataset.protocol
        self.reference = reference_of(self.dataset)
        self.cases: dict[Split, list[Case]] = {split: list(self.dataset.cases(split)) for split in SPLITS}
        self.splits = {split: tuple(item_id(case) for case in cases) for split, cases in self.cases.items()}
        self.patients = {item_id(case): case.patient for cases in self.cases.values() for case in cases}
        self.steps: dict[str, Step] = {}
        self._fingerprints: dict[str, dict[str, str]] = {}

    def add(
        self,
        id: str,
        kind: str,
        contestant: str,
        plugin: PluginSpec,
        identity: Mapping[str, Any],
        items: Sequence[str],
        inputs: Mapping[str, str] | None = None,
        detail: FrozenConfig | None = None,
        seed: int = 0,
    ) -> Step:
        """Add a step, or items to an existing one. identity: content of its key besides kind, plugin, seed and
        inputs. inputs: role -> id of an earlier step."""
        inputs = dict(inputs or {})
        full = dict(identity) | {"kind": kind, "plugin": plugin.plugin, "seed": seed}
        full["inputs"] = {role: self.steps[step].key for role, step in inputs.items()}
        known = self.steps.get(id)
        if known is not None:
            items = tuple(dict.fromkeys((*known.items, *items)))
        self.steps[id] = Step(
            id=id,
            kind=kind,
            key=digest(full),
            plugin=plugin,
            contestant=contestant,
            items=tuple(items),
            inputs=inputs,
            detail={} if detail is None else detail.model_dump(mode="json"),
            seed=seed,
            identity=full,
        )
        return self.steps[id]

    def segmenter_identity(self, spec: PluginSpec, names: Sequence[str]) -> dict[str, Any]:
        """The fingerprint of a segmenter's labels of these volumes; checks weights and licences before any work."""
        segmenter, key = specs.make("segmenters", spec), digest([spec.plugin, spec.config, list(names)])
        if key not in self._fingerprints:  # hashing weights takes seconds; many steps share them
            self._fingerprints[key] = dict(segmenter.fingerprint(names))
        known = {"version": segmenter.version, "config": specs.without_places(spec.config)}
        return {**known, "fingerprint": self._fingerprints[key]}


@dataclass
class Entrant:
    """A contestant while its steps are planned.

    unnamed: settings that no stage or purpose names, which are in the key of all. chosen: the stages whose weights a
    `select` step publishes.
    """

    contestant: Contestant
    generator: Any
    unnamed: keys.Settings
    chosen: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        return self.contestant.name

    @property
    def plugin(self) -> PluginSpec:
        return PluginSpec(plugin=self.contestant.plugin, config=self.contestant.config)

    def decides(self, one: Stage | Dependencies) -> dict[str, Any]:
        """The contestant's part of the key of a stage or purpose."""
        settings = specs.configuration("generators", self.contestant)
        return {**self.unnamed, **keys.decides(settings, one)}

    def training(self, stage: str) -> str:
        """The id of the step that trains a stage."""
        return f"train:{self.name}:{stage}"

    def weights(self, stage: str) -> str:
        """The id of the step that publishes a stage's weights."""
        return f"select:{self.name}:{stage}" if stage in self.chosen else self.training(stage)
