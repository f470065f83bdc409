"""No interpreter of the bench imports a file of the working directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medlord_bench.engine.executors.processes import serve_command
from medlord_bench.util.interpreter import module_command, safe_environment

NAMES = ("random", "yaml", "json", "numpy", "pydantic", "click")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder whose modules leave a file when they are imported."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write({name!r})\n")
    return tmp_path


def imported(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=120,
        start_new_session=True,  # a worker ends its whole group
    )  # fmt: skip
    found = folder / "imported"
    return found.read_text() if found.exists() else ""


def test_a_folder_with_modules_is_a_danger_without_protection(hostile: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    assert "random" in imported([sys.executable, "-c", "import random"], hostile, environment)


@pytest.mark.parametrize(
    "command",
    [
        serve_command(),
        [*module_command("medlord_bench"), "--version"],
        [sys.executable, "-m", "medlord_bench", "list", "metrics"],
        *(module_command(f"medlord_bench.plugins.segmenters.{name}.child") for name in ("nnunet", "totalsegmentator")),
    ],
    ids=["worker", "module", "main", "nnunet", "totalsegmentator"],
)
def test_no_child_imports_from_the_working_directory(command: list[str], hostile: Path) -> None:
    assert imported(command, hostile) == ""


def test_children_of_children_are_safe(hostile: Path) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import random'])"
    assert imported([sys.executable, "-P", "-c", code], hostile, dict(safe_environment())) == ""
