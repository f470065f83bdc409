"""Volumes get onto a generator's own grid and back by one rule, and a cohort there is the same cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from medlord_bench.contracts import DataProtocol, FitMode, Grid, Shape, Split, Volume
from medlord_bench.volumes.native_grid import (
    NativeCohort,
    from_native,
    labels_to_native,
    native_grid,
    on_native_grid,
    to_native,
)


class Ramp:
    """A cohort of one case whose HU rise along X, with a label map of its right half."""

    def __init__(self, shape: Shape) -> None:
        grid = Grid(shape=shape, spacing=(2.0, 2.0, 4.0), hu_window=(-1000, 1000))
        self.protocol = DataProtocol(
            name="ramp", grid=grid, fit="resize", split="", split_sha256="", counts={"train": 1}, masks="dataset"
        )
        self.label_names: Mapping[int, str] = {1: "right"}
        self.asked = 0

    def ids(self, split: Split) -> Sequence[str]:
        return ["a"]

    def hu(self, case_id: str) -> NDArray[np.int16]:
        self.asked += 1
        x, y, z = self.protocol.grid.shape
        return np.broadcast_to((np.arange(x) * 10 - 500).astype(np.int16)[:, None, None], (x, y, z))

    def labels(self, case_id: str) -> NDArray[np.uint8] | None:
        x, y, z = self.protocol.grid.shape
        return np.broadcast_to((np.arange(x) >= x // 2).astype(np.uint8)[:, None, None], (x, y, z))


def test_resizing_keeps_the_field_of_view() -> None:
    grid = Grid(shape=(40, 40, 20), spacing=(2.0, 2.0, 4.0))
    cube = native_grid(grid, (32, 32, 32), "resize")
    assert cube.spacing is not None and cube.hu_window == grid.hu_window
    np.testing.assert_allclose(np.array(cube.shape) * cube.spacing, np.array(grid.shape) * (2, 2, 4))
    assert native_grid(grid, (32, 32, 32), "crop-pad").spacing == grid.spacing


@pytest.mark.parametrize("how", ["resize", "crop-pad"])
def test_there_and_back_keeps_what_both_grids_can_hold(how: FitMode) -> None:
    data = Ramp((40, 20, 20))
    volume = Volume(np.array(data.hu("a")), data.protocol.grid.affine())
    there = to_native(volume, (64, 32, 32), (-1000, 1000), how)
    assert there.shape == (64, 32, 32)
    back = from_native(there, volume.shape, volume.affine, how, -1000)
    assert np.abs(back.hu.astype(int) - volume.hu).max() <= (1 if how == "crop-pad" else 4)  # held at the border
    np.testing.assert_array_equal(back.affine, volume.affine)


def test_a_cropped_volume_comes_back_with_air_outside() -> None:
    volume = Volume(np.zeros((8, 8, 8), np.int16), np.eye(4))
    back = from_native(to_native(volume, (4, 8, 8), (-1000, 1000), "crop-pad"), (8, 8, 8), np.eye(4), "crop-pad", -1000)
    assert (back.hu[2:6] == 0).all() and (back.hu[:2] == -1000).all() and (back.hu[6:] == -1000).all()


def test_a_volume_and_its_labels_on_the_models_grid_already_are_left_as_they_are() -> None:
    hu, labels = np.zeros((8, 8, 8), np.int16), np.zeros((8, 8, 8), np.uint8)
    assert to_native(Volume(hu, np.eye(4)), (8, 8, 8), (-1000, 1000), "resize").hu is hu
    assert from_native(Volume(hu, np.eye(4)), (8, 8, 8), np.eye(4), "resize", -1000).hu is hu
    assert labels_to_native(labels, (8, 8, 8), "resize") is labels


def test_label_maps_keep_their_labels_on_another_grid() -> None:
    labels = np.zeros((16, 16, 16), np.uint8)
    labels[4:12, 4:12, 4:12] = 115
    there = labels_to_native(labels, (16, 16, 8), "resize")
    assert there.shape == (16, 16, 8) and set(np.unique(there)) == {0, 115}
    assert (there == 115).sum() == 8 * 8 * 4


def test_a_cohort_is_cut_to_the_models_window_before_it_is_resampled(tmp_path: Path) -> None:
    data = Ramp((40, 20, 20))
    narrow = native_grid(data.protocol.grid.model_copy(update={"hu_window": (-400, -200)}), (20, 20, 20), "resize")
    cohort = on_native_grid(data, narrow, "resize", tmp_path)
    cut = Volume(np.array(data.hu("a")).clip(-400, -200), np.eye(4))
    np.testing.assert_array_equal(cohort.hu("a"), to_native(cut, (20, 20, 20), (-1000, 1000), "resize").hu)
    assert cohort.protocol.grid.hu_window == (-400, -200) and cohort.hu("a").min() == -400


def test_a_cohort_on_another_grid_is_made_once_and_keeps_its_labels(tmp_path: Path) -> None:
    data = Ramp((40, 20, 20))
    grid = native_grid(data.protocol.grid, (20, 20, 20), "resize")
    assert on_native_grid(data, data.protocol.grid, "resize", tmp_path) is data
    cohort = on_native_grid(data, grid, "resize", tmp_path / "native")
    assert isinstance(cohort, NativeCohort) and cohort.protocol.grid.spacing == (4.0, 2.0, 4.0)
    first, labels = cohort.hu("a"), cohort.labels("a")
    np.testing.assert_array_equal(first[:, 0, 0][1:-1], np.arange(20)[1:-1] * 20 - 495)  # two voxels' mean
    assert labels is not None and labels[:, 0, 0].tolist() == [0] * 10 + [1] * 10
    np.testing.assert_array_equal(cohort.hu("a"), first)
    assert data.asked == 1
