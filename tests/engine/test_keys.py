"""Every field of every built-in generator's and metric's configuration is in a key, or is declared not to be.

A field that is in no key silently reuses what was made under its old value. The test changes each field in turn, plans
the run again and compares the keys of the steps.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from medlord_bench.contracts import NotInKey, registry
from medlord_bench.contracts.specs import Contestant, PluginSpec, plugin_spec
from medlord_bench.contracts.validation import merged
from medlord_bench.engine import keys as key_parts
from medlord_bench.engine import planner
from medlord_bench.engine.resolve import RunSpec
from medlord_bench.errors import UserError
from medlord_bench.generators.controls.noise import Noise, NoiseConfig

PHANTOM = {"shape": (32, 32, 16), "n_train": 2, "n_val": 1, "n_test": 2, "hu_window": (-1000, 2000)}
ORACLE = Contestant(name="oracle", plugin="oracle", config=plugin_spec("generators", "oracle", {}).config)
PROGRAM = f"{sys.executable} x.py {{seed}} {{out}}"
PUBLISHED = {"repository": "a/b", "autoencoder": "a.pth", "diffusion": "b.pth", "hu_window": [-1000, 1000]}
# Settings to begin with, of plugins that do nothing without any, or that leave some field no second value.
GIVEN: dict[str, dict[str, Any]] = {
    "command": {
        "command": PROGRAM,
        "conditional_command": f"{PROGRAM} {{mask}}",
        "reconstruct_command": f"{sys.executable} x.py {{image}} {{out}}",
    },
    "hagan": {"net": {"channels": 64}},
    "maisi": {"autoencoder": {"patch": [16, 32, 16]}},
    "adherence": {"segmenter": "phantom", "regions": ["aorta"]},
    "downstream": {"trainer": "tiny", "regions": ["aorta"]},
    "rvr": {"segmenter": "phantom", "regions": ["aorta"]},
    "anatomy": {"segmenter": "phantom", "regions": ["aorta"]},
    "tissue": {"by_region": True, "segmenter": "phantom", "regions": ["aorta"]},
}
# Changes that `others` does not come upon: the only valid ones, or several fields that must change together.
CHANGES: dict[tuple[str, str], dict[str, Any]] = {
    ("command", "intensity"): {"intensity": {"from": [0, 1], "to": [-1000, 2000]}},
    ("command", "cwd"): {"cwd": "."},
    ("command", "orientation"): {"orientation": "LPS"},
    ("command", "reconstruct_command"): {"reconstruct_command": f"{sys.executable} y.py {{image}} {{out}}"},
    ("files", "intensity"): {"intensity": {"from": [0, 1], "to": [-1000, 2000]}},
    ("files", "manifest"): {"manifest": "list.csv"},
    ("files", "orientation"): {"orientation": "LPS"},
    ("drop-region", "region"): {"region": "lungs"},
    ("magnify", "region"): {"region": "aorta"},
    ("maisi", "grid"): {"grid": [32, 32, 32]},
    ("maisi", "foundation"): {"foundation": {}},
    ("medlord", "pretrained"): {"pretrained": PUBLISHED},
    ("voldit", "pretrained"): {"pretrained": {**PUBLISHED, "licence": "any"}},
    ("voldit", "diffusion.net.patch"): {"diffusion": {"net": {"patch": 4}}},
    ("adherence", "segmenter"): {"segmenter": "lungs"},
    ("adherence", "segmenter_settings"): {"segmenter_settings": {"seed": 1}},
    ("downstream", "external"): {"external": "phantom", "external_settings": {"seed": 1}},
    ("rvr", "segmenter_settings"): {"segmenter_settings": {"seed": 1}},
    ("rvr", "segmenter"): {"segmenter": "lungs"},
    ("anatomy", "segmenter_settings"): {"segmenter_settings": {"seed": 1}},
    ("anatomy", "segmenter"): {"segmenter": "lungs"},
    ("tissue", "segmenter_settings"): {"segmenter_settings": {"seed": 1}},
    ("tissue", "segmenter"): {"segmenter": "lungs"},
    ("fid", "arithmetic"): {"arithmetic": "maisi-compat", "extractor": "radimagenet"},
    ("lpips", "backbone_sha256"): {"backbone_sha256": "0" * 64},
}


def built_in(kind: str) -> list[str]:
    return [entry.name for entry in registry.entries(kind) if entry.distribution == "medlord-bench"]


def settings_of(kind: str, name: str, folder: Path) -> dict[str, Any]:
    """The smallest preset of a plugin, or its defaults, and what it cannot do without."""
    plugin = registry.load(kind, name)
    given = GIVEN.get(name, {})
    if name == "files":  # two folders of the same files: `others` makes the second name of the first
        for place in ("a", "ax"):
            (folder / place).mkdir()
            np.save(folder / place / "1.npy", np.zeros((32, 32, 16), np.int16))
            (folder / place / "list.csv").write_text("sample\n1.npy\n")
        given = {"folder": str(folder / "a")}
    preset = getattr(plugin, "presets", {}).get("smoke", {})
    return dict(plugin.Config.model_validate(merged(preset, given)).model_dump(mode="json"))


def keys(contestant: Contestant, metrics: tuple[PluginSpec, ...] = ()) -> dict[str, str]:
    """step id -> key of a run on a small phantom."""
    spec = RunSpec(
        contestants=(contestant,), dataset=plugin_spec("datasets", "phantom", PHANTOM), metrics=metrics, samples=2
    )
    return {step.id: step.key for step in planner.build(spec).steps}


def fields(model: type[BaseModel], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every field that holds a value, those of nested models too."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from fields(inner, (*at, name))
        else:
            yield (*at, name)


def others(value: Any, annotation: Any) -> Iterator[Any]:
    """Values of the same kind, near `value` first; a validator may refuse any of them."""
    literals = [
        arg for part in (annotation, *get_args(annotation)) if get_origin(part) is Literal for arg in get_args(part)
    ]
    yield from (literal for literal in literals if literal != value)
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, value * 2, value // 2, value * 4, value - 1, value + 16, 1, 2, 4)
    elif isinstance(value, float):
        yield from (value / 2, value * 0.9, value + 0.1, 0.5, 1.0)
    elif isinstance(value, str):
        yield from (f"{value}x", f"a{value}")
    elif isinstance(value, list | tuple):
        for place, one in enumerate(value):
            yield from ([*value[:place], other, *value[place + 1 :]] for other in others(one, None))
        yield from ([[*value, *value[-1:]], value[:-1]] if value else [["x"], [1]])
        yield from ([other] * len(value) for one in value[:1] for other in others(one, None))
    elif isinstance(value, dict):
        yield {**value, "x": 1}
    elif value is None:
        yield from (1, 2, 16, 0.5, "x", "lungs", (16, 16, 16), (0, 100), ("lung_left",), True)


def declared_not_in_key(model: type[BaseModel], path: tuple[str, ...]) -> bool:
    field = model.model_fields[path[0]]
    if any(isinstance(mark, NotInKey) for mark in field.metadata):
        return field.annotation is not int  # a budget of steps is in the key of the weights
    inner = field.annotation
    return len(path) > 1 and isinstance(inner, type) and declared_not_in_key(inner, path[1:])


def with_another(name: str, model: type[BaseModel], settings: dict[str, Any], at: str) -> dict[str, Any]:
    """The settings with one field changed, valid."""
    path, value, holder = at.split("."), settings, model
    annotation: Any = None
    for name_of_part in path:
        value, annotation = value[name_of_part], holder.model_fields[name_of_part].annotation
        holder = annotation
    changes = (
        [CHANGES[name, at]] if (name, at) in CHANGES else [_nested(path, other) for other in others(value, annotation)]
    )
    for change in changes:
        try:
            changed = model.model_validate(merged(settings, change)).model_dump(mode="json")
        except (ValidationError, UserError):
            continue
        if changed != settings:
            return dict(changed)
    raise AssertionError(f"{name}.{at}: no other valid value found for {value!r}: add one to CHANGES")


def _nested(path: Sequence[str], value: Any) -> Any:
    for name in reversed(path):
        value = {name: value}
    return value


def cases(kind: str) -> list[tuple[str, str]]:
    return [(name, ".".join(path)) for name in built_in(kind) for path in fields(registry.load(kind, name).Config)]


@pytest.mark.parametrize(("name", "at"), cases("generators"))
def test_a_generators_field_is_in_a_key_unless_declared(name: str, at: str, tmp_path: Path) -> None:
    model, settings = registry.load("generators", name).Config, settings_of("generators", name, tmp_path)
    changed = with_another(name, model, settings, at)
    before, after = (keys(Contestant(name=name, plugin=name, config=one)) for one in (settings, changed))
    assert (before == after) == declared_not_in_key(model, tuple(at.split(".")))


@pytest.mark.parametrize(("name", "at"), cases("metrics"))
def test_a_metrics_field_is_in_a_key(name: str, at: str, tmp_path: Path) -> None:
    model, settings = registry.load("metrics", name).Config, settings_of("metrics", name, tmp_path)
    changed = with_another(name, model, settings, at)
    before, after = (keys(ORACLE, (PluginSpec(plugin=name, config=one),)) for one in (settings, changed))
    assert before != after


class Forgetful(Noise):
    """A generator whose author names no field."""

    class Config(NoiseConfig):
        level: float = 1.0
        tile: Annotated[int, NotInKey("the same result")] = 8


@pytest.mark.parametrize(("change", "same"), [({"level": 2.0}, False), ({"tile": 4}, True)])
def test_a_field_that_its_author_forgot_is_in_every_key(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], same: bool
) -> None:
    """Without this, samples made under the old value would be used again."""
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda kind, name: Forgetful if name == "forgetful" else load(kind, name))
    before, after = (keys(Contestant(name="forgetful", plugin="forgetful", config=config)) for config in ({}, change))
    own = [step for step in before if "forgetful" in step]
    assert len(own) == 2 and all((before[step] == after[step]) == same for step in own)


def test_a_misspelt_field_is_named() -> None:
    with pytest.raises(
        ValueError, match="field 'sampling.step' is not in the key of anything; expected one of .*sampling"
    ):
        key_parts.part(key_parts.settings(registry.load("generators", "medlord").Config()), ("sampling.step",))
