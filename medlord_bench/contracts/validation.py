"""Validate data of users and files into typed, closed models; errors name the file, the field and the nearest name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from medlord_bench.contracts import registry
from medlord_bench.errors import UserError
from medlord_bench.util.documents import parse_json

Model = TypeVar("Model", bound=BaseModel)
LONGEST = 120  # letters of a value in a message


def validate(model: type[Model], data: Any, where: str) -> Model:
    """`model.model_validate(data)`, or a `UserError` that names `where`, the field, and the nearest name."""
    try:
        found = model.model_validate(data)
        wrong = _truth_as_number(found, data)
        if wrong is not None:
            raise UserError(f"{where}: field {wrong!r}: expected a number, got true or false")
        return found
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            holder = _holder(model, first["loc"][:-1])
            raise UserError(
                f"{where}: {registry.unknown('field', field, _fields(holder, first['loc'][:-1]))}"
            ) from None
        given = "" if first["type"] == "missing" else f", got {_shown(first['input'])}"
        raise UserError(f"{where}: field {field!r}: {first['msg'].removeprefix('Value error, ')}{given}") from None


def _truth_as_number(found: Any, data: Any) -> str | None:
    """The field in which true or false was given for a number; pydantic takes it for 1 or 0."""
    for name, got, value in _pairs(found, data):
        if isinstance(value, bool) and isinstance(got, int | float) and not isinstance(got, bool):
            return name
        inner = _truth_as_number(got, value)
        if inner is not None:
            return f"{name}.{inner}"
    return None


def _pairs(found: Any, data: Any) -> Iterator[tuple[str, Any, Any]]:
    """(name, validated value, given value) of the fields of a model or mapping, or of the places of a list."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            if isinstance(name, bool) and isinstance(found, Mapping):
                yield str(name), int(name), name
            yield str(name), found.get(name) if isinstance(found, Mapping) else getattr(found, str(name), None), value
    elif isinstance(data, list | tuple) and isinstance(found, list | tuple):
        for place, (got, value) in enumerate(zip(found, data, strict=False)):
            yield str(place), got, value


def _shown(value: object) -> str:
    """A value as it was given, shortened."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a {type(value).__name__} of thousands of digits"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def read_json(model: type[Model], path: Path) -> Model:
    """A JSON file written by the bench. Raises `UserError` naming a damaged one, `FileNotFoundError` if none is."""
    try:
        return validate(model, parse_json(path.read_text()), str(path))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); the file is damaged: restore it or run again") from None


def _holder(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The model class at a dotted path inside `model`, if it can be determined."""
    current: Any = model
    for part in path:
        if isinstance(part, int):  # a place in a list, of which `current` is what it holds
            continue
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return None
        current = _model_in(field.annotation)
    return current if isinstance(current, type) else None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first model class in a type such as `tuple[Model, ...] | None`, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for one in get_args(annotation) if (found := _model_in(one)) is not None), None)


def _fields(model: type[BaseModel] | None, path: tuple[int | str, ...]) -> list[str]:
    prefix = "".join(f"{part}." for part in path)
    return [prefix + name for name in model.model_fields] if model else []


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` overridden by `over`; nested mappings are merged, other values are replaced."""
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
