"""Fixtures that every test may use."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from medlord_bench.contracts import Run
from medlord_bench.progress import SilentProgress


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
