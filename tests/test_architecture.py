"""The layers of the architecture, the size of its parts, and that every plugin can be reached."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE, SHELVES = ROOT / "medlord_bench", ("generators", "metrics", "reports")
PREFIX = "medlord_bench."
MODULE_LINES, FUNCTION_LINES, LOOSE_FILES = 400, 60, 8
# The layers, lowest first: a file imports from its own and the ones above it in this table. What lies below the shelves is
# a plugin, and so are the small plugins in the core's own folder of that name.
LAYERS = {
    "errors": "what ends a command, with its exit code",
    "util": "files, hashes, seeds, progress, signals, provenance: nothing of CT",
    "contracts": "what plugins fulfil and exchange; finding, configuring and describing them",
    "stats": "distances, intervals and tests",
    "volumes": "CT volumes and label maps: read, check, fit to a grid, write",
    "descriptors": "numbers of each volume compared with those of real volumes: what several metrics share",
    "overlap": "label maps against masks, region by region: what adherence and downstream share",
    "memory": "the 24 GB guard of one process",
    "nn": "network parts and training loops that generators share",
    "results": "what a run leaves: its typed files, one reader, comparisons, several runs as one; no torch",
    "drawing": "what pages and figures share: planes of volumes, curves, the slice viewer, the style of figures",
    "engine": "run file to plan to published items to results",
    "reading": "blinded reader studies: packs, the browser reader, returns and their analysis",
    "fetching": "public data sets and weights from servers: resumable, verified, with their licences",
    "plugins": "generators, metrics, reports, data sets, segmenters, extractors",
    "checks": "whether a plugin keeps its contract, and the bench its promises",
    "cli": "one file per verb",
    "api": "the verbs as functions that return data frames",
}
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
    here = CORE / "nn" / "ema.py"
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


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "medlord_bench" else ("medlord_bench", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def graph() -> dict[str, set[str]]:
    """Module -> the modules of this package that it imports, anywhere: in functions and for type checkers too."""
    files = {module_name(path): path for path in (*core_modules(), *plugin_modules())}
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        found[module] = set()
        package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
        for level, name in imports(tree_of(path)):
            full = name if level == 0 else ".".join((*package[: len(package) - level + 1], name))
            target = full if full in files else full.rpartition(".")[0]  # a module, or a name in one
            if target in files and target != module:
                found[module].add(target)
    return found


def layer(module: str) -> str | None:
    """None for the package itself and `__main__`, which start the command line."""
    parts = module.split(".")
    if len(parts) == 1 or parts[1] == "__main__":
        return None
    return "plugins" if parts[1] in SHELVES else parts[1]


@pytest.mark.parametrize("module", sorted(graph()))
def test_a_module_imports_its_own_layer_and_lower_ones(module: str) -> None:
    own, order = layer(module), list(LAYERS)
    if own is None:
        return
    assert own in LAYERS, f"{module}: a new folder of the core needs a place in LAYERS"
    known = {target: order.index(place) for target in graph()[module] if (place := layer(target)) is not None}
    assert [target for target, place in known.items() if place > order.index(own)] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    sorter = TopologicalSorter(graph())
    try:
        sorter.prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_reports_read_the_run_folder_and_never_the_store() -> None:
    reports = [module for module in graph() if module.startswith("medlord_bench.reports.")]
    hidden = {"medlord_bench.engine.store", "medlord_bench.engine.prepared", "medlord_bench.engine.run_folder"}
    assert reports
    assert {module: graph()[module] & hidden for module in reports if graph()[module] & hidden} == {}


def test_few_files_lie_loose_in_the_core() -> None:
    assert len([path for path in CORE.iterdir() if path.is_file()]) <= LOOSE_FILES


def test_the_layers_see_what_they_are_for() -> None:
    """A graph without edges would pass everything."""
    assert "medlord_bench.engine.steps.samples" in graph()["medlord_bench.engine.planner"]
    assert "medlord_bench.generators.medlord.configs" in graph()["medlord_bench.generators.medlord.plugin"]
    assert "medlord_bench.contracts.results" in graph()["medlord_bench.contracts.plugins"], "for type checkers only"
    assert sum(map(len, graph().values())) > 1000


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
