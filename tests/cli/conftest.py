"""A finished run that the tests of the verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def noise(bench: Any) -> tuple[str, ...]:
    """The words after ``run`` of a run that takes seconds."""
    return ("--generator", "noise", *bench.phantom)


@pytest.fixture(scope="session")
def finished(bench: Any, noise: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of that run, finished, with its page. Tests that change it make a copy."""
    store: Path = tmp_path_factory.mktemp("finished") / "store"
    done = bench("run", *noise, "--store", store)
    assert done.code == 0, done.err
    return store
