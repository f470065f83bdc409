"""Volumes inside a page."""

from __future__ import annotations

import base64
import gzip
from pathlib import Path

import numpy as np

from medlord_bench.drawing.viewer import Shown, embedded
from medlord_bench.volumes.small import small_of, write_small


def shown(path: Path, id: str = "a") -> Shown:
    return Shown(id, "real", "case", path)


def test_a_volume_comes_back_from_its_text(tmp_path: Path) -> None:
    hu = np.random.default_rng(0).integers(-1000, 1000, (6, 5, 4)).astype(np.int16)
    labels = (hu > 0).astype(np.uint8)
    small = small_of(hu, (1.0, 2.0, 3.0), labels)
    write_small(tmp_path / "a.npz", small)
    (entry,) = embedded([shown(tmp_path / "a.npz")])
    values = np.frombuffer(gzip.decompress(base64.b64decode(entry["hu"])), "<i2").reshape(entry["shape"])
    assert (values == small.hu).all()
    mask = np.frombuffer(gzip.decompress(base64.b64decode(entry["labels"])), np.uint8).reshape(entry["shape"])
    assert (mask == labels).all()
    assert entry["spacing"] == (1.0, 2.0, 3.0)


def test_more_than_the_budget_is_shown_on_a_coarser_grid_and_equal_files_give_equal_text(tmp_path: Path) -> None:
    hu = np.random.default_rng(0).integers(-1000, 1000, (96, 96, 48)).astype(np.int16)
    write_small(tmp_path / "a.npz", small_of(hu, (1.0, 1.0, 2.0)))
    whole = embedded([shown(tmp_path / "a.npz")])
    assert whole[0]["shape"] == (96, 96, 48)
    both = [shown(tmp_path / "a.npz"), shown(tmp_path / "a.npz", "b")]
    budget = len(whole[0]["hu"])
    coarse = embedded(both, budget)
    assert [one["shape"] for one in coarse] == [(48, 48, 48)] * 2
    assert coarse[0]["spacing"] == (2.0, 2.0, 2.0)
    assert sum(len(one["hu"]) for one in coarse) <= budget
    assert embedded(both, budget) == coarse


def test_a_volume_that_is_gone_is_left_out(tmp_path: Path) -> None:
    assert embedded([shown(tmp_path / "gone.npz")]) == []
