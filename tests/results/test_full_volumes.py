"""Whole volumes for `report --serve`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medlord_bench.contracts import Volume
from medlord_bench.results.full_volumes import full_volume
from medlord_bench.results.pictures import Montage, write_montage
from medlord_bench.results.run_results import RunResults, read_run
from medlord_bench.volumes.io import write_volume

HU = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


@pytest.fixture
def run(tmp_path: Path) -> RunResults:
    (tmp_path / "plan.json").write_text(json.dumps({"contestants": [{"name": "ours:x@tiny"}]}))
    write_montage(tmp_path, Montage(spacing=(1.0, 2.0, 3.0)))
    (tmp_path / "images" / "images").mkdir(parents=True)
    np.save(tmp_path / "images" / "images" / "case-0.npy", HU)
    (tmp_path / "samples" / "ours_x@tiny").mkdir(parents=True)
    affine = np.diag([0.5, 0.5, 2.0, 1.0])
    write_volume(tmp_path / "samples" / "ours_x@tiny" / "sample-00000.nii.gz", Volume(HU, affine))
    return read_run(tmp_path)


@pytest.mark.parametrize(
    ("id", "spacing"),
    [("images/real/case-0", [1.0, 2.0, 3.0]), ("samples/ours:x@tiny/sample-00000", [0.5, 0.5, 2.0])],
)
def test_a_volume_comes_whole_with_its_voxel_size(run: RunResults, id: str, spacing: list[float]) -> None:
    answer = full_volume(run, {"id": id})
    assert answer is not None
    about = json.loads(answer.headers["X-Volume"])
    assert about == {"shape": [2, 3, 4], "spacing": spacing}
    assert (np.frombuffer(answer.content, "<i2").reshape(2, 3, 4) == HU).all()


@pytest.mark.parametrize(
    "id",
    [
        *("", "images/real/case-1", "images/real/../case-0", "images/real/..", "weights/real/case-0"),
        *("samples/other/sample-00000", "samples/../images/case-0", "samples/ours:x@tiny/", "/etc/passwd"),
    ],
)
def test_anything_else_is_not_there(run: RunResults, id: str) -> None:
    assert full_volume(run, {"id": id}) is None
