"""What a run is asked to do: a run file, command-line options and `--set a.b=c`, resolved into one typed `RunSpec`.

Plugin configurations are validated by the plugin's own `Config`; presets and variants are data on the plugin.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError

from medlord_bench import registry
from medlord_bench.contracts import DataProtocol, Frozen, OnItsOwnGrid
from medlord_bench.errors import UserError

Model = TypeVar("Model", bound=BaseModel)
CONTESTANT = re.compile(r"(?P<name>[^:@]+)(:(?P<variant>[^:@]+))?(@(?P<preset>[^:@]+))?")
WITHOUT_SEGMENTER = ("dataset", "none")  # values of a protocol's `masks` that are not a segmenter's name
DEFAULT_METRICS = ("axes", "fid", "rvr", "adherence", "memorisation", "reconstruction", "lpips")
DEFAULT_PRESET = {"phantom": "tiny"}  # every other data set: 24gb


class Contestant(Frozen):
    """One generator in one table: `name[:variant][@preset]` and its resolved configuration."""

    label: str
    plugin: str
    config: dict[str, Any]
    weights: Path | None = None


class PluginSpec(Frozen):
    """A data set, metric, segmenter or extractor by name, with its resolved configuration.

    variant: of a metric, the named protocol it is measured under; empty for its default.
    """

    plugin: str
    config: dict[str, Any]
    variant: str = ""

    @property
    def label(self) -> str:
        return self.plugin + (f":{self.variant}" if self.variant else "")


class RunSpec(Frozen):
    """Everything that decides the results of a run. Where and how fast it runs is not in here (`Settings`)."""

    contestants: tuple[Contestant, ...]
    dataset: PluginSpec
    masks: PluginSpec | None = Field(None, description="the segmenter that makes the masks of real images, if any")
    metrics: tuple[PluginSpec, ...]
    samples: int = Field(ge=0, description="unconditional samples per contestant")
    conditional: bool = True
    seed: int = 0
    train_steps: int | None = Field(None, ge=0, description="optimiser steps of each contestant; None: its preset's")
    train_hours: float | None = Field(None, gt=0, description="hours that each contestant may train; None: no limit")


class RunFile(Frozen):
    """A YAML run file. Every field can be given on the command line instead; the command line wins."""

    generators: tuple[str, ...] = ()
    dataset: str = ""
    metrics: tuple[str, ...] = DEFAULT_METRICS
    samples: int | None = Field(None, ge=0)
    conditional: bool = True
    resampled: bool = Field(True, description="real volumes through each generator's own grid, as rows of their own")
    seed: int = 0
    train_steps: int | None = Field(None, ge=0, description="optimiser steps of each contestant, in all its stages")
    train_hours: float | None = Field(
        None, gt=0, description="hours that each contestant may train, all stages together"
    )
    weights: Path | None = None
    set: dict[str, Any] = Field(default_factory=dict, description="dotted path -> value, as with --set")


def validate(model: type[Model], data: Any, where: str) -> Model:
    """`model.model_validate(data)`, or a `UserError` that names `where`, the field, and the near miss."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            holder = _holder(model, first["loc"][:-1])
            raise UserError(
                f"{where}: {registry.unknown('field', field, _fields(holder, first['loc'][:-1]))}"
            ) from None
        given = "" if first["type"] == "missing" else f", got {first['input']!r}"
        raise UserError(f"{where}: field {field!r}: {first['msg'].removeprefix('Value error, ')}{given}") from None


def read_json(model: type[Model], path: Path) -> Model:
    """A JSON file that the bench wrote. Raises `UserError` naming a damaged one, `FileNotFoundError` where none is."""
    try:
        return validate(model, json.loads(path.read_text()), str(path))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); the file is damaged: restore it or run again") from None


def _holder(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The model class that a dotted path inside `model` leads to, where it can be told."""
    current: Any = model
    for part in path:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return None
        options = [field.annotation, *getattr(field.annotation, "__args__", ())]
        current = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
    return current if isinstance(current, type) else None


def _fields(model: type[BaseModel] | None, path: tuple[int | str, ...]) -> list[str]:
    prefix = "".join(f"{part}." for part in path)
    return [prefix + name for name in model.model_fields] if model else []


def read_run_file(path: Path) -> RunFile:
    """Read and validate a YAML run file."""
    try:
        data = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: not found; expected a YAML run file") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected fields such as 'generators' and 'dataset', got {type(data).__name__}")
    return validate(RunFile, data, str(path))


def parse_sets(options: Iterable[str]) -> dict[str, Any]:
    """``["dataset.n_test=8", "dataset.patches.shape=64,64,64"]`` to {path: value}; values are YAML, commas a list."""
    found: dict[str, Any] = {}
    for option in options:
        path, equals, text = option.partition("=")
        if not equals or not path:
            raise UserError(f"--set {option}: expected PATH=VALUE, e.g. --set generator.diffusion.steps=100")
        try:
            value = yaml.safe_load(
                f"[{text}]" if "," in text and not text.lstrip().startswith(("[", "{", '"')) else text
            )
        except yaml.YAMLError:
            raise UserError(f"--set {option}: the value is not YAML") from None
        found[path.strip()] = value
    return found


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `over` laid on top; nested mappings are merged, everything else is replaced."""
    result = dict(base)
    for name, value in over.items():
        old = result.get(name)
        result[name] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def nested(paths: Mapping[str, Any], head: str) -> dict[str, Any]:
    """The settings below ``head.``, as nested mappings."""
    result: dict[str, Any] = {}
    for path, value in paths.items():
        first, _, rest = path.partition(".")
        if first != head or not rest:
            continue
        for part in reversed(rest.split(".")):
            value = {part: value}
        result = merged(result, value)
    return result


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
    label = match["name"] + (f":{match['variant']}" if match["variant"] else "") + (f"@{preset}" if preset else "")
    resolved = validate(plugin.Config, config, f"generator {label}")
    return Contestant(label=label, plugin=match["name"], config=resolved.model_dump(mode="json"), weights=weights)


def _named(where: str, kind: str, name: str, known: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The overrides of a preset or variant, or a `UserError` with the near miss."""
    if name not in known:
        raise UserError(f"{where}: " + registry.unknown(kind, name, known))
    return known[name]


def metric_spec(text: str, data: DataProtocol, sets: Mapping[str, Any]) -> PluginSpec:
    """Resolve ``name[:variant]``: `--set NAME.…` on top, then what is left open from the data set's protocol.

    `--set SEGMENTER.…` goes to whatever the metric segments with.
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


def plugin_spec(kind: str, name: str, config: Mapping[str, Any]) -> PluginSpec:
    """Resolve the configuration of a plugin that has no presets."""
    plugin = registry.load(kind, name)
    resolved = validate(plugin.Config, config, f"{kind.removesuffix('s')} {name}")
    return PluginSpec(plugin=name, config=resolved.model_dump(mode="json"))


def configuration(kind: str, spec: PluginSpec | Contestant) -> BaseModel:
    """A resolved spec's configuration, of the plugin's own class."""
    plugin = registry.load(kind, spec.plugin)
    model: type[BaseModel] = plugin.Config
    return validate(model, spec.config, f"{kind.removesuffix('s')} {spec.plugin}")


def make(kind: str, spec: PluginSpec | Contestant) -> Any:
    """The plugin object that a resolved spec describes."""
    return registry.load(kind, spec.plugin)(configuration(kind, spec))


def dataset(spec: PluginSpec) -> Any:
    """The data set that a resolved spec describes; one object for a process, since finding and hashing its files takes
    long on a cohort of many cases."""
    return _dataset(spec.plugin, spec.model_dump_json())


@lru_cache(maxsize=1)
def _dataset(plugin: str, spec: str) -> Any:
    return make("datasets", PluginSpec.model_validate_json(spec))


def without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without the folders that models and label maps lie in: their content is in a fingerprint."""
    inner = {name: without_places(value) if isinstance(value, Mapping) else value for name, value in settings.items()}
    return {name: value for name, value in inner.items() if name != "folder"}


def dataset_spec(file: RunFile) -> PluginSpec:
    """The data set of a run file, with its settings and where its images lie."""
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
    repeated = {c.label for c in contestants if sum(c.label == other.label for other in contestants) > 1}
    if repeated:
        raise UserError(f"--generator {sorted(repeated)[0]}: given twice; each contestant stands in a table once")
    made = dataset(spec)
    samples = len(made.cases("test")) if file.samples is None else file.samples
    masks = made.protocol.masks
    return RunSpec(
        contestants=contestants + (_resampled(contestants, made.protocol) if file.resampled else ()),
        dataset=spec,
        masks=None if masks in WITHOUT_SEGMENTER else plugin_spec("segmenters", masks, nested(file.set, masks)),
        metrics=tuple(metric_spec(name, made.protocol, file.set) for name in file.metrics),
        samples=samples,
        conditional=file.conditional,
        seed=file.seed,
        train_steps=file.train_steps,
        train_hours=file.train_hours,
    )


def _resampled(contestants: Iterable[Contestant], data: DataProtocol) -> tuple[Contestant, ...]:
    """Real volumes through the grid and window of each contestant that has its own: what those alone cost."""
    grids: dict[str, dict[str, Any]] = {}
    low, high = data.grid.hu_window
    for one in contestants:
        generator = make("generators", one)
        if not isinstance(generator, OnItsOwnGrid):
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
            label=f"holdout:through-{name}",
            plugin="holdout",
            config=plugin_spec("generators", "holdout", settings).config,
        )
        for name, settings in grids.items()
    )


def _check_heads(file: RunFile) -> None:
    """Each `--set` path must begin with something that this run has."""
    heads = {"generator", "dataset"}
    for text in (*file.generators, *file.metrics):
        match = CONTESTANT.fullmatch(text)
        if match:
            heads |= {match["name"], f"{match['name']}:{match['variant']}" if match["variant"] else match["name"]}
    heads |= {entry.name for entry in registry.entries("segmenters")}
    for path in file.set:
        head = path.partition(".")[0]
        if head not in heads or "." not in path:
            raise UserError(f"--set {path}: {registry.unknown('start of a path', head, heads)}")
