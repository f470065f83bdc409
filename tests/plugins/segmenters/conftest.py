"""Helper modules beside this file, as fixtures."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _helper(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def planted() -> ModuleType:
    """Tiny nnU-Net models with a known answer: planted.py."""
    return _helper("planted")


@pytest.fixture(scope="session")
def fake_child() -> ModuleType:
    """A segmenter's process without a model: fake_child.py."""
    return _helper("fake_child")
