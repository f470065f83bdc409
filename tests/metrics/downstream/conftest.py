"""A training process that trains nothing, and cases of a toy data set."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from medlord_bench.contracts import LabelMap, Volume
from medlord_bench.contracts.arms import LabelledCase
from medlord_bench.metrics.downstream import process

NAMES = {4: "lung_left", 5: "lung_right", 9: "aorta"}


@pytest.fixture
def fake_nnunet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", (sys.executable, str(Path(__file__).with_name("fake_nnunet.py"))))


def labelled(name: str, aorta: bool = True) -> LabelledCase:
    labels = np.zeros((6, 5, 4), np.uint8)
    labels[0], labels[5] = 4, 5
    labels[2, 2] = 9 if aorta else 0
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    hu = np.where(labels > 0, 100, -900).astype(np.int16)
    return LabelledCase(name, f"patient-{name}", lambda: (Volume(hu, affine), LabelMap(labels, affine, NAMES)))
