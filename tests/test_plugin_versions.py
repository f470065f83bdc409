"""A plugin's version goes into the key of all it makes, so a change of its output must raise it.

Nobody can see from a diff alone whether output changes; this test makes somebody look. It follows the imports of each
plugin through its own folder and the core. When it fails: if the output of a plugin that it names changes, raise that
plugin's `version`; in any case write the new digests down with

    UPDATE_PLUGIN_VERSIONS=1 pytest tests/test_plugin_versions.py
"""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import pytest

from medlord_bench.contracts import registry
from medlord_bench.util.hashing import file_sha256

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "medlord_bench"
SHELVES = ("generators", "metrics", "reports")
RECORD = Path(__file__).with_name("plugin_versions.json")
KINDS = ("generators", "datasets", "metrics", "segmenters", "extractors")

# What a plugin imports of these decides how it is called, checked, shown and stored, not what it computes.
NOT_OUTPUT = (
    *("errors.py", "engine/", "memory/", "checks/", "cli/"),
    *(f"util/{name}.py" for name in ("files", "hashing", "progress", "provenance", "stopping")),
    *(f"contracts/{name}.py" for name in ("__init__", "calibration", "plugins", "registry", "results", "specs")),
    *("contracts/validation.py", "contracts/values.py"),
)


def module_file(name: str) -> Path | None:
    """The file of a dotted module name of this package; None for a name that is not a module of it."""
    parts = name.split(".")
    if parts[0] != PACKAGE:
        return None
    base = ROOT / Path(*parts[1:]) if parts[1:2] and parts[1] in SHELVES else ROOT / Path(*parts)
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == PACKAGE else (PACKAGE, *parts))


@cache
def imported(path: Path) -> frozenset[Path]:
    """The files of this package that a file imports, also inside functions, those of `NOT_OUTPUT` left out."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(module_name(path).split(".")[: -node.level]) + "." if node.level else ""
            module = (package + (node.module or "")).rstrip(".")
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    skipped = tuple(f"{ROOT}/{PACKAGE}/{name}" for name in NOT_OUTPUT)
    files = {file for name in names if (file := module_file(name)) is not None and file.stat().st_size}
    return frozenset(file for file in files if not str(file).startswith(skipped))


def sources(target: str) -> list[Path]:
    """Every file that what an entry point names is computed by: its module, `child.py` beside it, which is started as a
    program, and whatever these import."""
    module = module_file(target.partition(":")[0])
    assert module is not None, target
    todo, found = {module, *module.parent.glob("child.py")}, set()
    while todo:
        file = todo.pop()
        found.add(file)
        todo |= imported(file) - found
    return sorted(found)


def plugins() -> dict[str, tuple[int, list[Path]]]:
    """Every built-in plugin: its version and its files."""
    return {
        f"{kind}/{entry.name}": (registry.load(kind, entry.name).version, sources(entry.target))
        for kind in KINDS
        for entry in registry.entries(kind)
        if entry.distribution == "medlord-bench"
    }


def current() -> dict[str, dict[str, object]]:
    files = {file for _, of_plugin in plugins().values() for file in of_plugin}
    return {
        "files": {str(file.relative_to(ROOT)): file_sha256(file)[:16] for file in sorted(files)},
        "versions": {name: version for name, (version, _) in plugins().items()},
    }


def changed(recorded: Mapping[str, Mapping[str, object]], now: Mapping[str, Mapping[str, object]]) -> list[str]:
    """The names, of files or plugins, that are new, gone or different."""
    names = [name for part in now for name in recorded[part].keys() | now[part].keys()]
    both = [{name: value for part in one.values() for name, value in part.items()} for one in (recorded, now)]
    return sorted(name for name in names if both[0].get(name) != both[1].get(name))


def asked(names: Iterable[str]) -> list[str]:
    """The plugins whose version somebody must look at when these files or plugins changed."""
    places = {ROOT / name for name in names}
    return sorted(name for name, (_, files) in plugins().items() if name in names or places & set(files))


def test_no_plugin_changed_without_a_look_at_its_version() -> None:
    now = current()
    if os.environ.get("UPDATE_PLUGIN_VERSIONS"):
        RECORD.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
    different = changed(json.loads(RECORD.read_text()), now)
    if different:
        pytest.fail(
            f"{', '.join(different)} changed, which decides the output of {', '.join(asked(different)) or 'none'}; "
            f"see the top of {Path(__file__).name}"
        )


@pytest.mark.parametrize(
    ("file", "plugin"),
    [
        ("medlord_bench/nn/attention.py", "generators/medlord"),
        ("medlord_bench/nn/attention.py", "generators/maisi"),
        ("medlord_bench/nn/diffusion/schedules.py", "generators/medlord"),
        ("medlord_bench/nn/diffusion/training.py", "generators/maisi"),
        ("medlord_bench/nn/vqgan/network.py", "generators/vqtrans"),
        ("medlord_bench/nn/training.py", "generators/hagan"),
        ("medlord_bench/plugins/extractors/imagenet/network.py", "extractors/imagenet"),
        ("medlord_bench/plugins/extractors/slices.py", "extractors/radimagenet"),
        ("medlord_bench/stats/frechet.py", "metrics/fid"),
        ("medlord_bench/plugins/segmenters/totalsegmentator/child.py", "segmenters/totalsegmentator"),
        ("medlord_bench/plugins/phantom/anatomy.py", "datasets/phantom"),
    ],
)
def test_a_change_below_a_plugin_asks_for_a_look(file: str, plugin: str) -> None:
    """A guard that sees a plugin's own module only lets a change of its network pass."""
    recorded = json.loads(RECORD.read_text())
    touched = {**recorded, "files": {**recorded["files"], file: "another"}}
    assert plugin in asked(changed(recorded, touched))
