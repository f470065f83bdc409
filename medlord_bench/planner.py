"""A run spec to ordered steps with keys and dependencies.

Each step's key is the sha256 of everything that changes its output and of nothing else (docs/architecture.md, "Keys").
Steps that address items by index or case leave the list of items out of their key, so asking for more adds to what is
there; only `scores` hold the list. A training's `lineage` leaves its budget out, so asking for more continues.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from medlord_bench import config, keys, seeds
from medlord_bench.config import Contestant, PluginSpec, RunSpec
from medlord_bench.contracts import (
    SPLITS,
    Case,
    Choice,
    DataProtocol,
    Need,
    OnItsOwnGrid,
    Purpose,
    Reads,
    Split,
    Stage,
)
from medlord_bench.errors import UserError
from medlord_bench.hashing import digest, file_sha256
from medlord_bench.plan import Native, Plan, Step, generated_name, item_id, sample_id

REAL = "real"


class Planner:
    """Builds the steps of one run, in order, sharing what contestants share."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.dataset = config.make("datasets", spec.dataset)
        self.protocol: DataProtocol = self.dataset.protocol
        self.cases: dict[Split, list[Case]] = {split: list(self.dataset.cases(split)) for split in SPLITS}
        self.splits = {split: tuple(item_id(case) for case in cases) for split, cases in self.cases.items()}
        self.steps: dict[str, Step] = {}
        self.native: dict[str, Native] = {}
        self.chosen: set[tuple[str, str]] = set()  # (contestant, stage) whose weights a `select` step publishes
        self.fingerprints: dict[str, dict[str, str]] = {}
        self.unnamed: dict[str, keys.Settings] = {}  # contestant -> settings that no stage or purpose names

    def plan(self) -> Plan:
        self._images()
        for contestant in self.spec.contestants:
            self._contestant(contestant)
        steps = tuple(self.steps.values())
        return Plan(
            run_key=digest([[step.id, step.key, list(step.items)] for step in steps]),
            dataset=self.spec.dataset,
            protocol=self.protocol,
            splits=self.splits,
            patients={item_id(c): c.patient for cases in self.cases.values() for c in cases},
            contestants=self.spec.contestants,
            native=self.native,
            train_steps=self.spec.train_steps,
            train_hours=self.spec.train_hours,
            steps=steps,
        )

    def _add(
        self,
        id: str,
        kind: str,
        label: str,
        plugin: PluginSpec,
        identity: Mapping[str, Any],
        items: Sequence[str],
        inputs: Mapping[str, str] | None = None,
        detail: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> Step:
        inputs = dict(inputs or {})
        full = dict(identity) | {"kind": kind, "plugin": plugin.plugin, "seed": seed}
        full["inputs"] = {role: self.steps[step].key for role, step in inputs.items()}
        known = self.steps.get(id)
        if known is not None:  # shared by several contestants or metrics: the same step, perhaps with more items
            items = (*known.items, *(item for item in items if item not in known.items))
        self.steps[id] = Step(
            id=id,
            kind=kind,
            key=digest(full),
            plugin=plugin,
            label=label,
            items=tuple(items),
            inputs=inputs,
            detail=dict(detail or {}),
            seed=seed,
            identity=full,
        )
        return self.steps[id]

    def _images(self) -> None:
        """Every case on the protocol's grid, once, for training and measuring alike."""
        every = [item for split in SPLITS for item in self.splits[split]]
        protocol = self.protocol
        identity = {
            "version": self.dataset.version,
            "grid": protocol.grid.model_dump(mode="json"),
            "fit": protocol.fit,
            "masks": self._masks(),
        }
        detail = {"masks": None if self.spec.masks is None else self.spec.masks.model_dump(mode="json")}
        self._add("images", "images", REAL, self.spec.dataset, identity, list(dict.fromkeys(every)), None, detail)

    def _masks(self) -> Any:
        """Where the masks of real images come from, as far as it decides them."""
        if self.spec.masks is None:
            return self.protocol.masks
        ids = [case.id for cases in self.cases.values() for case in cases]
        return {"segmenter": self.spec.masks.plugin, **self._segmenter(self.spec.masks, ids)}

    def _segmenter(self, spec: PluginSpec, names: Sequence[str]) -> dict[str, Any]:
        """What decides a segmenter's labels of these volumes; asks it for weights and licences before any work."""
        segmenter, key = config.make("segmenters", spec), digest([spec.plugin, spec.config, list(names)])
        if key not in self.fingerprints:  # hashing weights takes seconds; many steps share them
            self.fingerprints[key] = dict(segmenter.fingerprint(names))
        known = {"version": segmenter.version, "config": config.without_places(spec.config)}
        return {**known, "fingerprint": self.fingerprints[key]}

    # ------------------------------------------------------------------------------------------------- contestants
    def _contestant(self, contestant: Contestant) -> None:
        generator = config.make("generators", contestant)
        if contestant.weights is None:  # given weights bring their own architecture, and are checked as they load
            generator.check(self.protocol)
            if isinstance(generator, OnItsOwnGrid):
                grid, fit = generator.native(self.protocol.grid)
                self.native[contestant.label] = Native(grid=grid, fit=fit)
        plugin = PluginSpec(plugin=contestant.plugin, config=contestant.config)
        purposes = self._purposes(contestant, generator)
        reads = [generator.reads(purpose) for purpose in purposes]
        named = [field for one in (*generator.stages(), *reads) for field in one.fields]
        self.unnamed[contestant.label] = keys.unnamed(
            keys.settings(config.configuration("generators", contestant)), named
        )
        stages = _with_needs(generator.stages(), {name for one in reads for name in one.stages})
        if contestant.weights is not None:  # given weights are the choice
            stages = [replace(stage, choice=None) for stage in stages]
        share = self._shares(stages, set(generator.reads("sample").stages))
        if self.spec.train_steps is not None:
            steps = {name: round(part * self.spec.train_steps) for name, part in share.items()}
            stages = [replace(stage, steps=steps.get(stage.name, stage.steps)) for stage in stages]
        self.chosen |= {(contestant.label, stage.name) for stage in stages if stage.choice is not None}
        for stage in stages:
            hours = self.spec.train_hours if stage.name in share else None
            seconds = None if hours is None else share[stage.name] * 3600 * hours
            self._training(contestant, plugin, generator.version, stage, seconds)
            if stage.choice is not None:
                self._select(contestant, plugin, generator, stage, stage.choice)
        for purpose in purposes:
            self._outputs(contestant, plugin, generator, purpose)
        for metric in self.spec.metrics:
            self._metric(contestant, metric, generator)

    def _decides(self, contestant: Contestant, one: Stage | Reads) -> dict[str, Any]:
        """What of the contestant is in the key of a stage or purpose."""
        settings = config.configuration("generators", contestant)
        return {**self.unnamed[contestant.label], **keys.decides(settings, one)}

    def _shares(self, stages: list[Stage], sampling: set[str]) -> dict[str, float]:
        """The part of a budget that each stage that iterates gets: as the preset divides its steps.

        A stage that only conditional samples read is not paid for by the others: its part is in proportion, on top.
        """
        needed = {stage.name for stage in _with_needs(stages, sampling & {stage.name for stage in stages})}
        preset = sum(stage.steps or 0 for stage in stages if stage.name in needed)
        return {stage.name: stage.steps / preset for stage in stages if stage.steps is not None and preset}

    def _purposes(self, contestant: Contestant, generator: Any) -> list[Purpose]:
        capabilities = generator.capabilities
        purposes: list[Purpose] = []
        if "unconditional" in capabilities and self.spec.samples:
            purposes.append("sample")
        if "conditional" in capabilities and self.spec.conditional and self.protocol.condition_regions:
            purposes.append("sample-conditional")
        if "reconstructs" in capabilities:
            purposes.append("reconstruct")
        if not purposes:
            raise UserError(
                f"generator {contestant.label}: nothing to do; it can {sorted(capabilities)}, give --samples"
            )
        return purposes

    def _training(
        self, contestant: Contestant, plugin: PluginSpec, version: int, stage: Stage, seconds: float | None
    ) -> None:
        inputs = {need: self._weights(contestant, need) for need in stage.needs} | {"images": "images"}
        identity: dict[str, Any] = {"version": version, "stage": stage.name, "config": self._decides(contestant, stage)}
        identity["data"] = {split: list(self.splits[split]) for split in ("train", "val")}
        if stage.conditional:
            identity["regions"] = list(self.protocol.condition_regions)
        if contestant.weights is not None:  # data all the same: a latent scale may be measured on the training split
            identity["adopted"] = _weights_digest(contestant.weights)
        seed = seeds.derive(self.spec.seed, "train")
        keys = {role: self.steps[step].key for role, step in inputs.items()}
        detail = {
            "stage": stage.name,
            "steps": stage.steps,
            "seconds": seconds,
            "choice": None if stage.choice is None else asdict(stage.choice),
            "lineage": digest(identity | {"plugin": plugin.plugin, "seed": seed, "inputs": keys}),
            "weights": None if contestant.weights is None else str(contestant.weights.resolve()),
        }
        id, identity = _training_id(contestant, stage.name), identity | {"steps": stage.steps}
        identity |= {} if seconds is None else {"seconds": seconds}
        self._add(id, "weights", contestant.label, plugin, identity, ["weights"], inputs, detail, seed)

    def _weights(self, contestant: Contestant, stage: str) -> str:
        """The step that publishes a stage's weights."""
        known = (contestant.label, stage) in self.chosen
        return f"select:{contestant.label}:{stage}" if known else _training_id(contestant, stage)

    def _select(self, contestant: Contestant, plugin: PluginSpec, generator: Any, stage: Stage, choice: Choice) -> None:
        """Choose among a training's candidates by the FID of their samples to the validation split."""
        reads, steps = generator.reads("sample"), stage.steps or 0
        if stage.name not in reads.stages:
            raise UserError(f"{contestant.label}: stage {stage.name} does not take part in sampling; choose it by loss")
        others = [name for name in reads.stages if name != stage.name]
        inputs = {name: self._weights(contestant, name) for name in others}
        extractor = config.plugin_spec("extractors", choice.extractor, {})
        real = self._derived("features", extractor, self.steps["images"], self.splits["val"])
        inputs |= {"candidates": _training_id(contestant, stage.name), "val": real.id}
        identity: dict[str, Any] = {"version": generator.version, "config": self._decides(contestant, reads)}
        identity |= {"choice": asdict(choice)}
        identity |= {"stage": stage.name, "steps": steps, "grid": self.protocol.grid.model_dump(mode="json")}
        detail: dict[str, Any] = {"stage": stage.name, "others": others, "candidates": choice.candidates(steps)}
        detail |= {"samples": choice.samples, "extractor": extractor.model_dump(mode="json")}
        seed = seeds.derive(self.spec.seed, "select")
        id = self._weights(contestant, stage.name)
        self._add(id, "select", contestant.label, plugin, identity, ["weights"], inputs, detail, seed)

    def _outputs(self, contestant: Contestant, plugin: PluginSpec, generator: Any, purpose: Purpose) -> None:
        reads = generator.reads(purpose)
        inputs = {stage: self._weights(contestant, stage) for stage in reads.stages}
        identity = {"version": generator.version, "config": self._decides(contestant, reads), "purpose": purpose}
        identity["grid"] = self.protocol.grid.model_dump(mode="json")
        if purpose == "sample":
            available = generator.available(self.protocol)
            count = self.spec.samples if available is None else min(self.spec.samples, available)
            items = [sample_id(index) for index in range(count)]
        else:
            items = list(self.splits["test"])
        kind = {"sample": "samples", "sample-conditional": "conditional", "reconstruct": "reconstructions"}[purpose]
        if purpose == "sample-conditional":
            identity["regions"] = list(self.protocol.condition_regions)
        inputs |= {"images": "images"} if purpose != "sample" else {}
        seed = seeds.derive(self.spec.seed, purpose)
        self._add(f"{kind}:{contestant.label}", kind, contestant.label, plugin, identity, items, inputs, {}, seed)

    # ----------------------------------------------------------------------------------------------------- metrics
    def _metric(self, contestant: Contestant, spec: PluginSpec, generator: Any) -> None:
        metric = config.make("metrics", spec)
        inputs: dict[str, str] = {}
        needs: list[dict[str, Any]] = []
        wanted = metric.needs()
        measurable = self._source(contestant, wanted[0].source) is not None  # else the others need not be made
        for need in wanted:
            source = self._source(contestant, need.source) if measurable else None
            if source is None:
                needs.append({"source": need.source, "by": need.by, "items": None})
                continue
            step, items = source
            made = self._made(contestant, spec, metric, need, step, items)
            inputs[f"{need.source}|{need.by}"] = made.id
            inputs[f"{need.source}|volumes"] = step.id
            needs.append({"source": need.source, "by": need.by, "items": items})
        identity = {
            "version": metric.version,
            "config": config.without_places(spec.config),
            "needs": needs,
            "protocol": self.protocol.model_dump(mode="json"),
            "contestant": contestant.label,
        }
        self._add(
            f"scores:{contestant.label}:{spec.label}",
            "scores",
            contestant.label,
            spec,
            identity,
            ["scores"],
            inputs,
            {"needs": needs, "generator": contestant.label},
            seeds.derive(self.spec.seed, "metric", spec.plugin),
        )

    def _source(self, contestant: Contestant, source: str) -> tuple[Step, list[str]] | None:
        """The step that makes a source's volumes and the items of it, or None where the contestant has no such thing."""
        name, _, part = source.partition(":")
        if name == REAL:
            return self.steps["images"], list(self.splits[_split(part)])
        step = self.steps.get(f"{name}:{contestant.label}")
        return None if step is None else (step, list(step.items))

    def _made(
        self, contestant: Contestant, spec: PluginSpec, metric: Any, need: Need, step: Step, items: Iterable[str]
    ) -> Step:
        """The step that turns a source's volumes into what the metric reads."""
        by, _, name = need.by.partition(":")
        if by == "volumes":
            return step
        if by == "states":
            return self._states(contestant, spec, metric, need, step, items)
        kind = {"features": "extractors", "labels": "segmenters"}[by]
        return self._derived(by, config.plugin_spec(kind, name, metric.plugin_config()), step, items)

    def _states(
        self, contestant: Contestant, spec: PluginSpec, metric: Any, need: Need, step: Step, items: Iterable[str]
    ) -> Step:
        """A metric's own case-by-case part, of volumes or of label maps."""
        inputs = {"volumes": step.id, "images": "images"}
        _, _, of = need.by.partition(":")
        if of:
            inputs["labels"] = self._made(contestant, spec, metric, Need(need.source, of), step, items).id
        identity = {"version": metric.version, "config": config.without_places(spec.config), "source": need.source}
        place = need.source if step.label == REAL else step.id  # each split's apart: a metric may read several
        id = f"states:{place}:{spec.label}"
        return self._add(id, "states", step.label, spec, identity, list(items), inputs, {"source": need.source})

    def _derived(self, by: str, spec: PluginSpec, step: Step, items: Iterable[str]) -> Step:
        """Features or label maps of volumes; one step however many metrics want them."""
        items = list(items)
        if by == "features":
            made = config.make("extractors", spec)
            identity = {"version": made.version, "config": spec.config, "preprocessing": dict(made.preprocessing)}
        elif step.label == REAL:
            by_item = {item_id(case): case.id for cases in self.cases.values() for case in cases}
            identity = self._segmenter(spec, [by_item[item] for item in items])
        else:
            identity = self._segmenter(spec, [generated_name(step, item) for item in items])
        # Two metrics may want it in two configurations, and a fingerprint may depend on the list of cases.
        id = f"{by}:{step.id}:{spec.plugin}-{digest(identity)[:6]}"
        return self._add(id, by, step.label, spec, identity, items, {"volumes": step.id})


def _training_id(contestant: Contestant, stage: str) -> str:
    return f"train:{contestant.label}:{stage}"


def _split(text: str) -> Split:
    return next(split for split in SPLITS if split == text)


def _with_needs(stages: Sequence[Stage], wanted: set[str]) -> list[Stage]:
    """The wanted stages and everything they need, in order."""
    by_name = {stage.name: stage for stage in stages}
    todo, found = list(wanted), set()
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += by_name[name].needs
    return [stage for stage in stages if stage.name in found]


def _weights_digest(path: Path) -> dict[str, str]:
    """sha256 of every file that `--weights` names."""
    if not path.exists():
        raise UserError(f"--weights {path}: not found; expected a checkpoint file or a folder of them")
    files = [path]
    if path.is_dir():  # a run's `weights` folder holds links to folders
        below = os.walk(path, followlinks=True)
        files = sorted(Path(folder) / name for folder, _, names in below for name in names)
    if not files:
        raise UserError(f"--weights {path}: an empty folder; expected checkpoint files")
    return {str(file.relative_to(path) if file != path else file.name): file_sha256(file) for file in files}


def build(spec: RunSpec) -> Plan:
    """The plan of a run. Finds the data set's cases (raises `MissingError` where they are not there)."""
    return Planner(spec).plan()
