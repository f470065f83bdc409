"""A report as a research object."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from medlord_bench.errors import ExitCode, MissingError
from medlord_bench.results.crate import write_crate
from medlord_bench.results.report import write_reports
from medlord_bench.results.run_results import read_run


def test_the_crate_reloads_with_every_file(tmp_path: Path) -> None:
    rocrate = pytest.importorskip("rocrate.rocrate")
    (tmp_path / "run").mkdir()
    run = read_run(tmp_path / "run")
    files = write_reports(run, tmp_path / "out", only=["card"])
    path = write_crate(run, tmp_path / "out", files)
    again = rocrate.ROCrate(tmp_path / "out")
    assert {entity.id for entity in again.data_entities} >= {"card.md", "card.json", "results.json", "methods.md"}
    before = path.read_bytes()
    assert write_crate(run, tmp_path / "out", files).read_bytes() == before


def test_without_the_package_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rocrate.rocrate", None)
    with pytest.raises(MissingError, match=r"pip install 'medlord-bench\[crate\]'") as error:
        write_crate(read_run(tmp_path), tmp_path, [])
    assert error.value.code == ExitCode.MISSING
