"""The literature of a run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medlord_bench.contracts import registry
from medlord_bench.results import references

ROOT = Path(__file__).parents[2]
FILES = [
    path
    for path in ROOT.rglob("references.bib")
    if ".venv" not in path.parts and path.parent.parent.name != "medlord_bench"
]


def test_the_plugins_of_a_run_name_their_literature(tmp_path: Path) -> None:
    keys = references.collect(
        tmp_path, [("metrics", "fid"), ("generators", "medlord"), ("generators", "noise"), ("metrics", "fid")]
    )
    assert keys["metrics/fid"][0] == "heusel2017gans"
    assert "generators/noise" not in keys
    found = references.read(tmp_path)
    assert set(found) == {key for names in keys.values() for key in names}
    assert list(found) == sorted(found)


def test_a_key_means_the_same_entry_in_every_file() -> None:
    seen: dict[str, str] = {}
    for path in FILES:
        for key, entry in references.parse(path.read_text()).items():
            assert seen.setdefault(key, entry) == entry, f"{key} in {path}"
    assert len(seen) > 20


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_entries_are_well_formed(path: Path) -> None:
    text = path.read_text()
    entries = references.parse(text)
    assert len(entries) == len(re.findall(r"^@", text, re.MULTILINE)), "every entry is found"
    for entry in entries.values():
        assert entry.count("{") == entry.count("}")
        assert "title = " in entry and "author = " in entry


def test_plugins_without_a_package_or_file_have_none() -> None:
    assert references.of_plugin("generators", "noise") == {}
    assert references.of_plugin("metrics", "nothing") == {}
    assert all(isinstance(references.of_plugin("metrics", one.name), dict) for one in registry.entries("metrics"))
