"""Plugins by name, through entry points: names are listed without importing anything, code is loaded on first use.

Built-ins are found in the same way as third-party distributions; a broken plugin affects only itself.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from medlord_bench.errors import MissingError, UserError

log = logging.getLogger("medlord_bench")

KINDS = ("generators", "datasets", "metrics", "segmenters", "extractors", "reports", "executors", "commands")


@dataclass(frozen=True)
class Entry:
    """A plugin as declared by its distribution. `target` is "module:attribute"."""

    kind: str
    name: str
    target: str
    distribution: str
    version: str


@cache
def _points(kind: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"medlord_bench.{kind}")}


def entries(kind: str) -> list[Entry]:
    """Every plugin of a kind, by name; nothing is imported. Raises `UserError` for an unknown kind."""
    if kind not in KINDS:
        raise UserError(unknown("kind of plugin", kind, KINDS))
    return [
        Entry(kind, name, point.value, *(("", "") if point.dist is None else (point.dist.name, point.dist.version)))
        for name, point in sorted(_points(kind).items())
    ]


def kind_of(text: str) -> str:
    """A kind as written by the user, "generator" or "generators". Raises `UserError` for an unknown one."""
    kind = text if text in KINDS else f"{text}s"
    if kind not in KINDS:
        raise UserError(unknown("kind of plugin", text, KINDS))
    return kind


def load(kind: str, name: str) -> Any:
    """The class behind a name. Raises `UserError` (unknown name) or `MissingError` (its import fails)."""
    points = _points(kind)
    if name not in points:
        raise UserError(unknown(kind.removesuffix("s"), name, points))
    try:
        return points[name].load()
    except Exception as error:  # whatever a third party's module raises concerns that plugin alone
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MissingError(
            f"{kind.removesuffix('s')} {name!r} ({points[name].value}) cannot be loaded: {reason}; "
            "install its requirements, fix it, or reinstall its distribution"
        ) from error


def loadable(kind: str) -> dict[str, Any]:
    """Name -> class of every plugin of a kind that can be loaded. A broken one affects only the runs that name it: here it
    is left out, with a warning."""
    found: dict[str, Any] = {}
    for entry in entries(kind):
        try:
            found[entry.name] = load(kind, entry.name)
        except MissingError as error:
            log.warning("left out: %s", error)
    return found


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The message for an unknown name: the nearest name, first one of the same letters, or all known names."""
    names = sorted(known)
    near = sorted(difflib.get_close_matches(name, names), key=lambda known: sorted(known) != sorted(name))
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
    return f"unknown {what} {name!r}; {hint}"
