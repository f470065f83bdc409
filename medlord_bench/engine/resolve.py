"""A run file into one typed `RunSpec`: every plugin found, every preset, variant and ``--set`` applied and validated.

Plugin configurations are validated by the plugin's own `Config`; presets and variants are data on the plugin.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from medlord_bench.contracts import DataProtocol, FrozenConfig, HasNativeGrid, registry
from medlord_bench.contracts.reference import reference_of
from medlord_bench.contracts.specs import WITHOUT_SEGMENTER, Contestant, PluginSpec, dataset, make, plugin_spec
from medlord_bench.contracts.validation import merged, nested, validate
from medlord_bench.engine.run_file import RunFile
from medlord_bench.errors import UserError

CONTESTANT = re.compile(r"(?P<name>[^:@]+)(:(?P<variant>[^:@]+))?(@(?P<preset>[^:@]+))?")
DEFAULT_PRESET = {"phantom": "tiny"}  # every other data set: 24gb


class RunSpec(FrozenConfig):
    """Everything that decides the results of a run. Place and speed of the run are in `Settings`."""

    contestants: tuple[Contestant, ...]
    dataset: PluginSpec
    masks: PluginSpec | None = Field(None, description="the segmenter that makes the masks of real images, if any")
    metrics: tuple[PluginSpec, ...]
    samples: int = Field(ge=0, description="unconditional samples per contestant")
    conditional: bool = True
    seed: int = 0
    train_steps: int | None = Field(None, ge=0, description="optimiser steps of each contestant; None: its preset's")
    train_hours: float | None = Field(None, gt=0, description="hours that each contestant may train; None: no limit")


def contestant(text: str, dataset: str, sets: Mapping[str, Any], weights: Path | None = None) -> Contestant:
    """Resolve ``name[:variant][@preset]`` with its `--set generator.…` (all) and `--set NAME.…` (its own) overrides."""
    match = CONTESTANT.fullmatch(text.strip())
    if match is None:
        raise UserError(f"--generator {text}: expected NAME[:VARIANT][@PRESET], e.g. medlord@tiny")
    plugin = registry.load("generators", match["name"])
    preset = match["preset"] or DEFAULT_PRESET.get(dataset, "24gb")
    if match["preset"] is None and preset not in plugin.presets:
        preset = None
    variant = None if getattr(plugin, "free_variants", False) else match["variant"]
    config: dict[str, Any] = {}
    for kind, name, known in (("preset", preset, plugin.presets), ("variant", variant, plugin.variants)):
        if name is not None:
            config = merged(config, _named(f"generator {match['name']!r}", kind, name, known))
    for head in ("generator", match["name"], f"{match['name']}:{match['variant']}"):
        config = merged(config, nested(sets, head))
    name = match["name"] + (f":{match['variant']}" if match["variant"] else "") + (f"@{preset}" if preset else "")
    resolved = validate(plugin.Config, config, f"generator {name}")
    return Contestant(name=name, plugin=match["name"], config=resolved.model_dump(mode="json"), weights=weights)


def _named(where: str, kind: str, name: str, known: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The overrides of a preset or variant, or a `UserError` that names the nearest."""
    if name not in known:
        raise UserError(f"{where}: " + registry.unknown(kind, name, known))
    return known[name]


def metric_spec(text: str, data: DataProtocol, sets: Mapping[str, Any]) -> PluginSpec:
    """Resolve ``name[:variant]``: first `--set NAME.…`, then unset fields from the data set's protocol.

    `--set SEGMENTER.…` applies to the metric's segmenter.
    """
    name, _, variant = text.partition(":")
    plugin = registry.load("metrics", name)
    settings: dict[str, Any] = {}
    if variant:
        settings = merged(settings, _named(f"metric {name!r}", "variant", variant, plugin.variants))
    for head in dict.fromkeys((name, text)):
        settings = merged(settings, nested(sets, head))
    config = validate(plugin.Config, settings, f"metric {text}")
    if hasattr(config, "for_data"):
        config = config.for_data(data)
    values = config.model_dump(mode="json")
    if "segmenter" in values:
        of_segmenter = nested(sets, values["segmenter"])
        values["segmenter_settings"] = merged(of_segmenter, values["segmenter_settings"])
    return PluginSpec(plugin=name, config=values, variant=variant)


def dataset_spec(file: RunFile) -> PluginSpec:
    """The data set of a run file, with its settings and the folder of its images."""
    data = nested(file.set, "dataset")
    root = os.environ.get("MEDLORD_BENCH_DATA_ROOT")
    if root and "data_root" in registry.load("datasets", file.dataset).Config.model_fields:
        data.setdefault("data_root", root)
    return plugin_spec("datasets", file.dataset, data)


def resolve(file: RunFile) -> RunSpec:
    """A `RunFile` to a `RunSpec`: every plugin found, every configuration complete and valid."""
    if not file.generators:
        raise UserError("no generator: give --generator NAME (see: medlord-bench list generators)")
    if not file.dataset:
        raise UserError("no data set: give --dataset NAME (see: medlord-bench list datasets)")
    _check_heads(file)
    spec = dataset_spec(file)
    contestants = tuple(contestant(text, file.dataset, file.set, file.weights) for text in file.generators)
    repeated = {c.name for c in contestants if sum(c.name == other.name for other in contestants) > 1}
    if repeated:
        raise UserError(f"--generator {sorted(repeated)[0]}: given twice; a contestant appears once in a table")
    twice = next((name for name in file.metrics if file.metrics.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"--metric {twice}: given twice; give it once")
    made = dataset(spec)
    samples = len(made.cases("test")) if file.samples is None else file.samples
    masks = made.protocol.masks
    return RunSpec(
        contestants=contestants + (_resampled(contestants, made.protocol) if file.resampled else ()),
        dataset=spec,
        masks=None
        if masks in WITHOUT_SEGMENTER or reference_of(made)
        else plugin_spec("segmenters", masks, nested(file.set, masks)),
        metrics=tuple(metric_spec(name, made.protocol, file.set) for name in file.metrics),
        samples=samples,
        conditional=file.conditional,
        seed=file.seed,
        train_steps=file.train_steps,
        train_hours=file.train_hours,
    )


def _resampled(contestants: Iterable[Contestant], data: DataProtocol) -> tuple[Contestant, ...]:
    """Real volumes through the grid and window of each contestant that has its own, to show the loss due to these
    alone."""
    grids: dict[str, dict[str, Any]] = {}
    low, high = data.grid.hu_window
    for one in contestants:
        generator = make("generators", one)
        if not isinstance(generator, HasNativeGrid):
            continue
        grid, how = generator.native(data.grid)
        window = max(low, grid.hu_window[0]), min(high, grid.hu_window[1])
        narrower = window != data.grid.hu_window
        if grid.shape == data.grid.shape and not narrower:
            continue
        name = "x".join(map(str, grid.shape)) + ("" if how == "resize" else "-cropped")
        name += f"-{window[0]}..{window[1]}HU" if narrower else ""
        grids[name] = {"through": grid.shape, "fit": how, "window": window if narrower else None}
    return tuple(
        Contestant(
            name=f"holdout:through-{name}",
            plugin="holdout",
            config=plugin_spec("generators", "holdout", settings).config,
        )
        for name, settings in grids.items()
    )


def _check_heads(file: RunFile) -> None:
    """Each `--set` path must begin with a plugin of this run."""
    heads = {"generator", "dataset"}
    for text in (*file.generators, *file.metrics):
        match = CONTESTANT.fullmatch(text)
        if match:
            heads |= {match["name"], f"{match['name']}:{match['variant']}" if match["variant"] else match["name"]}
    heads |= {entry.name for entry in registry.entries("segmenters")}
    for path in file.set:
        head = path.partition(".")[0]
        if head not in heads or "." not in path:
            dotted = head in heads and f"expected a path with a dot, such as {head}.FIELD"
            raise UserError(f"--set {path}: {dotted or registry.unknown('start of a path', head, heads)}")
