"""The two rules that carry the architecture, the size of its parts, and that every plugin can be reached."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE, SHELVES = ROOT / "medlord_bench", ("generators", "metrics", "reports")
PREFIX = "medlord_bench."
MODULE_LINES, FUNCTION_LINES = 400, 60
HEAVY = ("torch", "monai", "scipy", "matplotlib", "pandas", "nibabel")


def core_modules() -> list[Path]:
    """The core's own files: the links to the shelves are left out."""
    linked = tuple(CORE / shelf for shelf in SHELVES)
    return [path for path in sorted(CORE.rglob("*.py")) if not any(path.is_relative_to(link) for link in linked)]


def plugin_modules() -> list[Path]:
    return [path for shelf in SHELVES for path in sorted((ROOT / shelf).rglob("*.py"))]


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(level, dotted name) of every import, in functions too; the names of `from a import b` as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, f"{node.module}.{a.name}" if node.module else a.name) for a in node.names)


def absolute(path: Path, level: int, name: str) -> str:
    """The dotted name of an import as written in `path` of the core."""
    if level == 0:
        return name
    package = path.relative_to(ROOT).with_suffix("").parts[:-level]
    return ".".join((*package, name))


def on_a_shelf(name: str) -> bool:
    parts = name.removeprefix(PREFIX).split(".")
    return parts[0] in SHELVES and (name.startswith(PREFIX) or len(parts) > 1)


def points() -> list[tuple[str, str, str]]:
    """(kind, name, target) of every entry point that pyproject.toml announces."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = [
        (group.removeprefix(PREFIX), name, target)
        for group, entries in project["entry-points"].items()
        for name, target in entries.items()
    ]
    return [*found, *(("scripts", name, target) for name, target in project["scripts"].items())]


@pytest.mark.parametrize("path", core_modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_never_imports_a_plugin(path: Path) -> None:
    named = [absolute(path, level, name) for level, name in imports(tree_of(path))]
    assert [name for name in named if on_a_shelf(name)] == []


@pytest.mark.parametrize("path", plugin_modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_plugin_imports_the_core_absolutely_and_only_its_own_folder_relatively(path: Path) -> None:
    depth = len(path.relative_to(ROOT).parts) - 2  # folders below the shelf: 1 for shelf/plugin/module.py
    for level, name in imports(tree_of(path)):
        if level:
            assert level <= depth, f"line imports {'.' * level}{name}, outside its own plugin"
        else:
            assert not on_a_shelf(name), f"{name}: a plugin imports the core, or its own folder relatively"


def test_the_rules_catch_what_they_are_for() -> None:
    """A checker that sees nothing would pass everything."""
    here = CORE / "nn" / "vqgan.py"
    for text in (
        "import medlord_bench.generators.medlord",
        "from medlord_bench import metrics",
        "from medlord_bench.reports.page.page import Page",
        "from ..generators import medlord",
        "import generators.medlord",
        "def f():\n    from medlord_bench.metrics import fid",
    ):
        named = [absolute(here, level, name) for level, name in imports(ast.parse(text))]
        assert any(map(on_a_shelf, named)), text
    for text in ("from torchmetrics import image", "from medlord_bench.stats import frechet", "import metricsx.y"):
        assert not any(on_a_shelf(absolute(here, level, name)) for level, name in imports(ast.parse(text))), text


@pytest.mark.parametrize("path", [*core_modules(), *plugin_modules()], ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_stay_short_enough_to_read(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MODULE_LINES
    long = {
        node.name: (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: lines for name, lines in long.items() if lines > FUNCTION_LINES} == {}


@pytest.mark.parametrize(("kind", "name", "target"), points(), ids=lambda value: str(value))
def test_every_entry_point_resolves(kind: str, name: str, target: str) -> None:
    module, _, attribute = target.partition(":")
    assert hasattr(import_module(module), attribute)


def test_importing_every_plugin_imports_nothing_heavy() -> None:
    """`medlord-bench list` stays fast: the plugin modules themselves load neither torch nor its kind."""
    modules = sorted({target.partition(":")[0] for _, _, target in points()})
    code = (
        "import json, sys\nfrom importlib import import_module\nfound = {}\n"
        "for name in json.loads(sys.argv[1]):\n"
        "    before = set(sys.modules)\n"
        "    try: import_module(name)\n    except ImportError: continue  # told by the test above\n"
        "    heavy = [h for h in json.loads(sys.argv[2]) if h in sys.modules and h not in before]\n"
        "    if heavy: found[name] = heavy\n"
        "print(json.dumps(found))"
    )
    command = [sys.executable, "-c", code, json.dumps(modules), json.dumps(HEAVY)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout) == {}


@pytest.mark.parametrize("verb", ["--help", "list", "status --help", "report --help", "doctor --help"])
def test_verbs_that_only_look_import_no_torch(verb: str) -> None:
    code = (
        "import sys\nfrom medlord_bench.cli import main\nsys.argv = ['medlord-bench', *sys.argv[1:]]\n"
        "try: main()\nexcept SystemExit: pass\nprint('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *verb.split()], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "False"


@pytest.mark.parametrize("shelf", SHELVES)
def test_the_installed_shelves_are_those_of_the_checkout(shelf: str) -> None:
    """A copy of the links, as some tools make, would let two versions of a plugin drift apart."""
    module = import_module(f"{PREFIX}{shelf}")
    assert Path(str(module.__file__)).resolve() == ROOT / shelf / "__init__.py"
