"""`frd:hu` in a run of the bench, and what `frd` says without the library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medlord_bench.engine import planner, resolve
from medlord_bench.engine.run_file import RunFile
from medlord_bench.errors import ExitCode, MissingError
from medlord_bench.plugins.extractors.radiomics import library

SETS = (
    *("dataset.shape=24,24,20", "dataset.n_train=8", "dataset.n_val=8", "dataset.n_test=8"),
    "frd:hu.features.spacing=[14,14,14]",
)
WORDS = (
    "--dataset",
    "phantom",
    "--generator",
    "hu-shift:200",
    "--samples",
    "8",
    "--metric",
    "frd:hu",
)


def words(tmp_path: Path) -> list[str]:
    sets = [word for one in SETS for word in ("--set", one)]
    return [*WORDS, *sets, "--no-report", "--store", str(tmp_path / "store")]


def test_hu_that_are_wrong_in_all_of_a_volume_are_seen_with_hu_kept(bench: Any, tmp_path: Path) -> None:
    pytest.importorskip("flash_radiomics", reason=library.INSTALL)
    done = bench("run", *words(tmp_path))
    assert done.code == 0, done.err
    folder = next((tmp_path / "store" / "runs").iterdir())
    found = json.loads((folder / "results" / "scores.json").read_text())
    (one,) = (one for one in found["scores"] if one["reference"] == "test")
    assert one["metric"] == "frd" and one["protocol"].startswith("frd-hu-") and one["n"] == 8
    assert one["value"] > one["floor"] and one["p"] <= 0.01
    assert {"konz2026frechet"} <= set(found["references"]["extractors/radiomics"])


def test_without_the_library_no_plan_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "PACKAGES", ("no_such_library",))
    file = RunFile(generators=("noise",), dataset="phantom", metrics=("frd",), samples=8)
    expected = r"no_such_library is not installed: pip install 'medlord-bench\[radiomics\]'"
    with pytest.raises(MissingError, match=expected) as caught:
        planner.build(resolve.resolve(file))
    assert caught.value.code == ExitCode.MISSING
