"""The benchmark of the 24 GB presets runs on any machine in its small form, so that a lent card is not spent on faults."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_24gb.py"


def test_the_gpu_benchmark_passes_in_its_small_form_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--tiny", "--only", "hagan@smoke", "--json"]
    command += ["--out", str(tmp_path / "out.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer == json.loads((tmp_path / "out.json").read_text())
    rows = {row["stretch"]: row for row in answer["rows"]}
    assert set(rows) == {"train GAN", "sample", "reconstruct", "one whole sample"}
    assert all(row["evidence"] == "measured-on-cpu" and row["resident"] > 0 for row in rows.values())
    assert all(check["ok"] for check in answer["checks"]) and len(answer["checks"]) >= 2 * len(rows) - 1


@pytest.mark.parametrize("result", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_committed_result_is_judged_as_it_was(result: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    checks = importlib.import_module("gpu_24gb").checks
    answer = json.loads(result.read_text())
    assert checks(answer["rows"]) == answer["checks"]
    first = answer["rows"][0]
    more = checks([first | {"allocated": first["predicted"] + 0.1}, first | {"device": 22.6}, {**first, "error": "x"}])
    assert [one["ok"] for one in more] == [True, False, False, True, False]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_benchmark_says_so_and_measures_nothing() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 3 and done.stdout == "" and "--device cpu --tiny" in done.stderr
