"""Plugins by name with their resolved configuration, and the objects that they describe."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from medlord_bench.contracts import registry
from medlord_bench.contracts.validation import validate
from medlord_bench.contracts.values import FrozenConfig

WITHOUT_SEGMENTER = ("dataset", "none")  # values of a protocol's `masks` that are not a segmenter's name


class Contestant(FrozenConfig):
    """One generator in one table: `name[:variant][@preset]` and its resolved configuration."""

    name: str
    plugin: str
    config: dict[str, Any]
    weights: Path | None = None


class PluginSpec(FrozenConfig):
    """A data set, metric, segmenter or extractor by name, with its resolved configuration.

    variant: of a metric, the named protocol it is measured under; empty for its default.
    """

    plugin: str
    config: dict[str, Any]
    variant: str = ""

    @property
    def name(self) -> str:
        return self.plugin + (f":{self.variant}" if self.variant else "")


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
    """The data set that a resolved spec describes; one object per process, since finding and hashing its files
    takes long for a cohort of many cases."""
    return _dataset(spec.plugin, spec.model_dump_json())


@lru_cache(maxsize=1)
def _dataset(plugin: str, spec: str) -> Any:
    return make("datasets", PluginSpec.model_validate_json(spec))


def without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without the folders of models and label maps: their content is in a fingerprint."""
    inner = {name: without_places(value) if isinstance(value, Mapping) else value for name, value in settings.items()}
    return {name: value for name, value in inner.items() if name != "folder"}
