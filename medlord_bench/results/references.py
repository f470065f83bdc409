"""The literature of a run: every plugin that took part names its own, in a `references.bib` beside its module."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path

from medlord_bench.contracts import registry
from medlord_bench.util.files import write_text

FILE = "references.bib"
ENTRY = re.compile(r"^@\w+\{([^,\s]+),.*?^\}", re.MULTILINE | re.DOTALL)


def parse(text: str) -> dict[str, str]:
    """Key -> entry of a BibTeX text whose entries begin with ``@`` and end with ``}`` at the start of a line."""
    return {found.group(1): found.group(0) for found in ENTRY.finditer(text)}


def of_plugin(kind: str, name: str) -> dict[str, str]:
    """Key -> entry that a plugin names; none without a file. kind: as in `registry`, e.g. "metrics"."""
    target = next((entry.target for entry in registry.entries(kind) if entry.name == name), "")
    package = target.partition(":")[0].rpartition(".")[0]
    if not package:
        return {}
    path = files(package).joinpath(FILE)
    return parse(path.read_text(encoding="utf-8")) if path.is_file() else {}


def collect(folder: Path, plugins: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Write `references.bib` of (kind, name) plugins into `folder`; returns the keys of each as "kind/name"."""
    found = {f"{kind}/{name}": of_plugin(kind, name) for kind, name in dict.fromkeys(plugins)}
    write(folder / FILE, {key: entry for entries in found.values() for key, entry in entries.items()})
    return {plugin: tuple(entries) for plugin, entries in found.items() if entries}


def write(path: Path, entries: Mapping[str, str]) -> None:
    """Write entries in the order of their keys, atomically."""
    write_text(path, "\n\n".join(entries[key] for key in sorted(entries)) + "\n" * bool(entries))


def read(folder: Path) -> dict[str, str]:
    """Key -> entry of the file written by `collect`; none without one."""
    path = folder / FILE
    return parse(path.read_text(encoding="utf-8", errors="replace")) if path.exists() else {}
