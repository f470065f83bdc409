"""Provenance says where a run came from, keeps secrets out, and never fails a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from medlord_bench.util import provenance

LISTED = "NVIDIA GeForce RTX 4090, 550.54.14, 24564\nNVIDIA GB10, 580.95.05, [N/A]\n"
HEADER = "| NVIDIA-SMI 550.54.14    Driver Version: 550.54.14    CUDA Version: 12.4     |"


def test_everything_is_json_and_carries_what_a_number_needs() -> None:
    found = provenance.collect("cpu")
    json.dumps(found)
    assert {"medlord_bench", "git", "python", "packages", "command", "started", "device", "gpus"} <= set(found)
    assert found["packages"]["numpy"]
    assert found["started"].endswith("+00:00")


def test_a_machine_without_git_or_a_gpu_driver_still_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = provenance.collect("cpu")
    assert found["git"] is None
    json.dumps(found)


def test_a_fact_that_raises_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise RuntimeError("no")

    monkeypatch.setattr(provenance.socket, "gethostname", broken)
    assert provenance.collect("cpu")["hostname"] is None


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("https://me:secret@host.org/a/b.git", "https://host.org/a/b.git"),
        ("https://secret@host.org/a", "https://host.org/a"),
        ("ssh://git@host.org/a", "ssh://host.org/a"),
        ("https://host.org/a?token=secret&x=1", "https://host.org/a?token=REDACTED&x=1"),
        ("run --set api_key=secret --n 4", "run --set api_key=REDACTED --n 4"),
        ("git@host.org:a/b.git", "git@host.org:a/b.git"),
        ("medlord@tiny", "medlord@tiny"),
    ],
)
def test_credentials_do_not_reach_the_record(typed: str, kept: str) -> None:
    assert provenance.redact(typed) == kept


def test_git_state_is_the_checkouts_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    package = tmp_path / "medlord_bench"
    package.mkdir()
    (package / "provenance.py").write_text("")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    git("remote", "add", "origin", "https://me:secret@host.org/a.git")
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    state = provenance.git_state()
    assert state == {"sha": git("rev-parse", "HEAD"), "dirty": False, "origin": "https://host.org/a.git"}
    (package / "provenance.py").write_text("changed")
    changed = provenance.git_state()
    assert changed is not None
    assert changed["dirty"] is True


def test_an_installed_copy_does_not_report_the_repository_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "venv" / "medlord_bench"
    package.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    assert provenance.git_state() is None


def test_nvidia_smi_is_read_with_names_memory_and_supported_cuda() -> None:
    driver = provenance.nvidia_driver(lambda command: LISTED if len(command) > 1 else HEADER)
    assert driver is not None
    assert driver.cuda == "12.4"
    assert driver.gpus[0] == provenance.Gpu("NVIDIA GeForce RTX 4090", "550.54.14", 24.0)
    assert driver.gpus[1].memory_gib is None


def test_no_driver_is_none_not_an_empty_list() -> None:
    assert provenance.nvidia_driver(lambda command: None) is None


def test_the_cuda_build_is_read_without_importing_torch() -> None:
    code = (
        "import sys, json; from medlord_bench.util.provenance import torch_cuda_build; found = torch_cuda_build();"
        "assert 'torch' not in sys.modules; import torch; print(json.dumps([found, torch.version.cuda]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found, truth = json.loads(done.stdout)
    assert found == truth
