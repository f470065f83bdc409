"""Fixtures that every test may use."""

from __future__ import annotations

import importlib.util
import locale
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from medlord_bench.contracts import Run
from medlord_bench.util.progress import SilentProgress


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run context on the CPU that shows nothing."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Run(device="cpu", seed=0, progress=SilentProgress(), log=logging.getLogger("test"), scratch=scratch)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real CT, named by MEDLORD_BENCH_TEST_DATA."""
    place = os.environ.get("MEDLORD_BENCH_TEST_DATA")
    if not place or not Path(place).is_dir():
        pytest.skip("real CT is not at hand: set MEDLORD_BENCH_TEST_DATA to its folder")
    return Path(place)


@pytest.fixture(autouse=True)
def keep_locale() -> Iterator[None]:
    """SimpleITK's DICOM writer sets the locale to "C"; Python would read every later text file as ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


def _helpers(name: str) -> ModuleType:
    """A module of helpers beside this file."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """``bench("run", "--generator", "noise", ...)`` runs `medlord-bench` in a process of its own; see commands.py."""
    commands = _helpers("commands").Commands(tmp_path_factory.mktemp("commands"))
    yield commands
    commands.close()
