"""Coarse volumes for reports: small, on the same field of view, the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medlord_bench.errors import UserError
from medlord_bench.volumes.small import SIDE, STEP_HU, SmallVolume, read_small, small_of, write_small


def test_a_small_volume_is_kept_to_the_rounding() -> None:
    hu = np.random.default_rng(0).integers(-1000, 2000, (20, 30, 10)).astype(np.int16)
    small = small_of(hu, (1.0, 1.0, 2.5))
    assert small.hu.shape == hu.shape and small.hu.dtype == np.int16
    assert small.spacing == (1.0, 1.0, 2.5)
    assert np.abs(small.hu.astype(int) - hu).max() <= STEP_HU / 2


def test_a_large_volume_is_averaged_in_boxes_and_keeps_its_size_in_mm() -> None:
    hu = np.zeros((200, 96, 7), np.int16)
    hu[:100] = 400
    small = small_of(hu, (0.5, 1.0, 3.0))
    assert small.hu.shape == (66, 96, 7)
    assert small.spacing == (1.5, 1.0, 3.0)
    assert max(small.hu.shape) <= SIDE
    assert small.hu[0, 0, 0] == 400 and small.hu[-1, 0, 0] == 0
    assert small.hu[33, 0, 0] == 132, "a box of one slice of 400 and two of 0 has their mean, rounded"


def test_labels_are_those_of_the_middle_voxels() -> None:
    hu, labels = np.zeros((9, 3, 3), np.int16), np.zeros((9, 3, 3), np.uint8)
    labels[4] = 7
    small = small_of(hu, None, labels, side=3)
    assert small.labels is not None
    assert small.labels[:, 1, 1].tolist() == [0, 7, 0]


def test_the_file_gives_back_the_volume_and_equal_bytes(tmp_path: Path) -> None:
    volume = SmallVolume(np.arange(24, dtype=np.int16).reshape(2, 3, 4), (1.0, 2.0, 3.0), np.ones((2, 3, 4), np.uint8))
    for name in ("a.npz", "b.npz"):
        write_small(tmp_path / name, volume)
    back = read_small(tmp_path / "a.npz")
    assert (back.hu == volume.hu).all() and back.spacing == volume.spacing and (back.labels == volume.labels).all()
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"hello"])
def test_a_damaged_file_is_an_error_naming_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match="x.npz: not a small volume"):
        read_small(tmp_path / "x.npz")


def test_a_file_of_other_arrays_is_an_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", hu=np.zeros((2, 2)))
    with pytest.raises(UserError, match=r"holds float64 \(2, 2\)"):
        read_small(tmp_path / "x.npz")
