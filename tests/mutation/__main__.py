"""Random mutants of the code that computes and reads numbers: `make mutants N=200`, or N=0 for all of them.

Each mutant is one small change (operators.py) in memory: no file is written. Tests that run the changed line (coverage_map.py)
run on it, the fastest first, until one fails. A mutant that no test kills is printed.

Why not mutmut or cosmic-ray: mutmut copies the project and knows a package by its folder, and these are mapped by
setup.py and linked; cosmic-ray starts a new interpreter for each mutant, which imports torch and MONAI (5 s) each
time. Here each mutant is a fork of one process that has imported the libraries, but none of the project's modules.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import coverage_map
import operators
import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGETS = (
    "medlord_bench/stats",
    "medlord_bench/volumes",
    "medlord_bench/nn",
    "medlord_bench/overlap",
    "medlord_bench/descriptors",
    "medlord_bench/plugins/datasets",
    "medlord_bench/util/documents.py",
    "medlord_bench/util/text_tables.py",
    "metrics",
)
TESTS = ("stats", "volumes", "nn", "overlap", "descriptors", "plugins/datasets", "metrics", "util", "contracts")
LIBRARIES = "torch monai.losses monai.networks.nets pandas scipy.stats scipy.ndimage nibabel SimpleITK pydicom pydantic yaml hypothesis torchmetrics skimage"
LEAST_SECONDS, TIMES = 30.0, 5.0  # a mutant's limit: what its tests took, times five
MEMORY = 12 << 30  # bytes of data: a mutant may ask for any array
NOTHING_RUN = 5  # pytest's exit code


@dataclass(frozen=True)
class Mutant:
    path: str  # below the root
    number: int  # of the changes of that module
    lines: tuple[int, int]
    function: bool

    def text(self) -> str:
        """The column of the changed expression, and the expression before and after."""
        places = list(operators.changes(ast.parse((ROOT / self.path).read_text(encoding="utf-8"))))
        before, after = places[self.number].node, mutated(ROOT / self.path, self.number)[1]
        return f"{before.col_offset + 1}  " + "  ->  ".join(
            ast.unparse(node).splitlines()[0] for node in (before, after)
        )


def mutants(paths: list[Path]) -> list[Mutant]:
    """All mutants of some modules."""
    found = []
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for number, change in enumerate(operators.changes(tree)):
            found.append(Mutant(str(path.relative_to(ROOT)), number, change.lines, change.function))
    return found


def mutated(path: Path, number: int) -> tuple[ast.Module, ast.AST]:
    """The tree of a module with one change, and the node that was changed."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for place, change in enumerate(operators.changes(tree)):
        if place == number:
            change.apply()
            return ast.fix_missing_locations(tree), change.node
    raise IndexError(number)


def tests_of(mutant: Mutant, seconds: dict[str, float], lines: coverage_map.Lines, budget: float) -> list[str]:
    """The tests that run a mutant's line, the fastest first, within a budget of seconds.

    What runs at import time is seen by every test of the module, else of its folder.
    """
    path = ROOT / mutant.path
    if mutant.function:
        own = lines.get(str(path), {})
        found = set().union(*(own.get(line, set()) for line in mutant.lines))
    else:
        found = set().union(*lines.get(str(path), {}).values())
        if not found:
            beside = [own for name, own in lines.items() if Path(name).parent == path.parent]
            found = set().union(*(tests for own in beside for tests in own.values()))
    chosen, spent = [], 0.0
    for test in sorted(found, key=lambda name: (seconds[name], name)):
        spent += seconds[test]
        if spent > budget and chosen:
            break
        chosen.append(test)
    return chosen


def forked(work: Any, limit: float) -> int | None:
    """The exit code of a function in a fork of this process; None if it took longer than the limit."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setsid()
        code = 1
        try:
            code = int(work())
        finally:
            os._exit(code)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def try_one(mutant: Mutant, tests: list[str], control: bool) -> int:
    """In a fork: import the mutant in place of its module, and run the tests. control: the module as it is."""
    target = os.path.realpath(ROOT / mutant.path)
    tree = ast.parse(Path(target).read_text(encoding="utf-8")) if control else mutated(Path(target), mutant.number)[0]
    code = compile(tree, target, "exec")
    usual = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, name: str) -> Any:
        return code if os.path.realpath(self.get_filename(name)) == target else usual(self, name)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    result = int(pytest.main([*tests, "-x", "-q", "-p", "no:cacheprovider", "--tb=no", "--timeout=0"]))
    return 0 if result == 0 else NOTHING_RUN if result == NOTHING_RUN else 1


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("count", type=int, help="mutants to draw; 0: all")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--skip", type=int, default=0, help="leave out the first of the draw")
    options.add_argument("--only", default="", help="a part of the path and line, as printed: path:line")
    options.add_argument("--control", action="store_true", help="change nothing: all have to be alive")
    options.add_argument("--budget", type=float, default=10.0, help="seconds of tests for each mutant")
    options.add_argument("--map", type=Path, default=Path(".mutants"), help="where the measured coverage is kept")
    given = options.parse_args()
    os.chdir(ROOT)
    start = time.monotonic()
    sources = [
        path for name in TARGETS for path in sorted([Path(name)] if name.endswith(".py") else Path(name).rglob("*.py"))
    ]
    names = [str(ROOT / path) for path in sources]
    files = [str(path) for name in TESTS for path in sorted((Path("tests") / name).rglob("test_*.py"))]
    for name in LIBRARIES.split():
        importlib.import_module(name)
    assert not [name for name in sys.modules if name.startswith("medlord_bench")]
    wanted = coverage_map.stamps(files, names)
    seconds, lines, stale = coverage_map.read(files, given.map, wanted)
    if stale:
        print(f"Measuring which lines the tests of {len(stale)} files run", flush=True)
        forked(lambda: coverage_map.measure(stale, names, given.map, wanted) or 0, 7200)
        seconds, lines, stale = coverage_map.read(files, given.map, wanted)
        print(f"{len(seconds)} tests, {time.monotonic() - start:.0f} s", flush=True)
    every = mutants([ROOT / path for path in sources])
    drawn = every if not given.count else random.Random(given.seed).sample(every, given.count)[given.skip :]
    drawn = [one for one in drawn if given.only in f"{one.path}:{one.lines[0]}"]
    print(f"{len(drawn)} of {len(every)} mutants of {len(sources)} modules", flush=True)
    counts: Counter[str] = Counter()
    for place, mutant in enumerate(drawn):
        begin = time.monotonic()
        tests = tests_of(mutant, seconds, lines, given.budget)
        limit = LEAST_SECONDS + TIMES * sum(seconds[test] for test in tests)
        result = (
            forked(lambda mutant=mutant, tests=tests: try_one(mutant, tests, given.control), limit)
            if tests
            else NOTHING_RUN
        )
        outcome = {0: "alive", NOTHING_RUN: "no test", None: "killed (time)"}.get(result, "killed")
        counts[outcome] += 1
        took = f"{len(tests)} tests, {time.monotonic() - begin:.1f} s"
        print(
            f"{place + given.skip:4d} {outcome:13s} {mutant.path}:{mutant.lines[0]}:{mutant.text()}  [{took}]",
            flush=True,
        )
    print(", ".join(f"{name}: {count}" for name, count in counts.most_common()), f"in {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
