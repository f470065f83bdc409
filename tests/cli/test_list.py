"""`list`: what there is, fast, and with a broken plugin named instead of in the way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def test_the_generators_are_listed_as_json_without_importing_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['medlord-bench', 'list', 'generators', '--json']\n"
        "from medlord_bench.cli import main\n"
        "try: main()\n"
        "finally: print(*sorted({m.partition('.')[0] for m in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert set(rows) >= {"medlord", "noise"}
    assert rows["medlord"]["distribution"] == "medlord-bench"
    assert set(rows["medlord"]["presets"]) >= {"tiny", "24gb", "paper-pccta", "paper-luna", "released-luna"}
    assert rows["medlord"]["capabilities"] == ["conditional", "reconstructs", "unconditional"]
    imported = set(done.stderr.split())
    assert "pydantic" in imported, "the list of imported modules was not seen"
    assert imported.isdisjoint({"torch", "monai", "scipy", "matplotlib", "pandas", "nibabel", "SimpleITK"})


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("generators", "medlord"), ("datasets", "phantom"), ("metrics", "fid"), ("segmenters", "files")),
        *(("extractors", "imagenet"), ("reports", "page"), ("executors", "local")),
    ],
)
def test_every_kind_is_listed_in_plain_words_and_by_its_singular(bench: Any, kind: str, name: str) -> None:
    plural, singular = bench("list", kind), bench("list", kind.removesuffix("s"))
    assert plural.code == 0 and plural.out == singular.out
    (row,) = (line for line in plural.out.splitlines() if line.split()[0] == name)
    assert len(row.split()) > 3, "a plugin says in its first line what it is"


def test_an_unknown_kind_is_named_as_it_was_written(bench: Any) -> None:
    done = bench("list", "generatorz")
    assert (done.code, done.out) == (2, "")
    assert done.err == "Error: unknown kind of plugin 'generatorz'; did you mean 'generators'?\n"


def test_a_plugin_that_cannot_be_loaded_is_listed_with_what_it_misses(bench: Any) -> None:
    broken = """
from importlib.metadata import EntryPoint
from medlord_bench.contracts import registry
points = dict(registry._points("generators"))
points["broken"] = EntryPoint("broken", "medlord_bench_of_nobody:X", "medlord_bench.generators")
registry._points = lambda kind: points
"""
    done = bench("list", "generators", "--json", prelude=broken)
    assert done.code == 0
    rows = {row["name"]: row for row in json.loads(done.out)}
    assert "No module named 'medlord_bench_of_nobody'" in rows["broken"]["problem"]
    assert "problem" not in rows["medlord"]
    assert "medlord_bench_of_nobody" in bench("list", "generators", prelude=broken).out
