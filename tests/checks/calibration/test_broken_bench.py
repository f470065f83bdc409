"""`calibrate` end to end: a sound bench is trusted, and one metric broken on purpose is found (exit 1)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SWAP_REGIONS = """
import dataclasses
from medlord_bench.metrics.rvr import volumes
from medlord_bench.metrics.rvr.metric import RVR
RVR.version += 1
count, other = volumes.count, {"aorta": "left_ventricle", "left_ventricle": "aorta"}
def swapped(labels, regions, spacing):
    names = {value: other.get(name, name) for value, name in labels.names.items()}
    return count(dataclasses.replace(labels, names=names), regions, spacing)
volumes.count = swapped
"""
SKIP_WINDOW = """
from medlord_bench.plugins.extractors import slices
from medlord_bench.plugins.extractors.imagenet.extractor import ImageNetExtractor
ImageNetExtractor.version += 1
import torch
torch.Tensor.clamp_ = lambda self, low, high: self
"""


def calibrate(bench: Any, store: Path, metric: str, prelude: str = "") -> tuple[int, dict[str, Any]]:
    done = bench("calibrate", "--store", store, "--metric", metric, "--json", prelude=prelude)
    assert done.out, done.err
    return done.code, json.loads(done.out)


def failed(answer: dict[str, Any]) -> set[str]:
    return {one["fault"] for one in answer["findings"] if one["status"] == "failed"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_regions_swapped_are_found(bench: Any, tmp_path: Path) -> None:
    code, answer = calibrate(bench, tmp_path, "rvr")
    assert (code, answer["trusted"]) == (0, True), failed(answer)
    code, answer = calibrate(bench, tmp_path, "rvr", SWAP_REGIONS)
    assert (code, answer["trusted"]) == (1, False)
    assert {"drop-region:aorta", "drop-region:left_ventricle"} <= failed(answer)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_window_that_is_not_applied_is_found(bench: Any, tmp_path: Path) -> None:
    code, answer = calibrate(bench, tmp_path, "fid")
    assert (code, answer["trusted"]) == (0, True), failed(answer)
    code, answer = calibrate(bench, tmp_path, "fid", SKIP_WINDOW)
    assert (code, answer["trusted"]) == (1, False)
    assert "implant at 1000 and 2000 HU" in failed(answer)
