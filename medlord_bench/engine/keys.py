"""Which part of a plugin's configuration is in a step's key.

A field is in the key of the stages and purposes that name it. A field that none of them names is in all their keys: a
field that a plugin's author forgets causes unnecessary recomputation, but never the reuse of results of another value.
Only a field that is annotated `NotInKey` is in none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from medlord_bench.contracts.values import Dependencies, NotInKey, Stage

Settings = Mapping[str, Any]  # dotted path of a field -> its value as JSON


def settings(config: BaseModel) -> dict[str, Any]:
    """Every field of a configuration that may be in a key, by dotted path; fields of nested models one by one."""
    values = config.model_dump(mode="json")
    found: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        if any(isinstance(mark, NotInKey) for mark in field.metadata):
            continue
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            found |= {f"{name}.{path}": inner for path, inner in settings(value).items()}
        else:
            found[name] = values[name]
    return found


def part(every: Settings, fields: Iterable[str]) -> dict[str, Any]:
    """The settings that `fields` name: dotted paths of fields or of the models that hold them.

    Raises ValueError for a name that no setting has: it is misspelt, or its field is annotated `NotInKey`.
    """
    found: dict[str, Any] = {}
    for field in fields:
        named = {path: value for path, value in every.items() if path == field or path.startswith(f"{field}.")}
        if not named:
            raise ValueError(f"field {field!r} is not in the key of anything; expected one of {', '.join(every)}")
        found |= named
    return found


def decides(config: BaseModel, one: Stage | Dependencies) -> dict[str, Any]:
    """The dependencies of a stage or purpose besides weights: the settings that it names, and its facts."""
    return part(settings(config), one.fields) | (dict(one.facts) if isinstance(one, Dependencies) else {})


def unnamed(every: Settings, fields: Iterable[str]) -> dict[str, Any]:
    """The settings that none of `fields` names."""
    named = part(every, fields)
    return {path: value for path, value in every.items() if path not in named}
