"""Sheared grids become upright ones: what lies where in mm does not change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medlord_bench.contracts import LabelMap, Volume
from medlord_bench.errors import UserError
from medlord_bench.volumes.shear import shear_of, straightened

WHERE = Path("scan")


def tilted(degrees: float, axis: int = 1, spacing: tuple[float, float, float] = (1.2, 0.9, 3.0)) -> np.ndarray:
    """An affine whose slices lean by `degrees` towards `axis`, at right angles otherwise, somewhere in the world."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, axis] *= np.cos(np.radians(degrees))
    affine[2, axis] = spacing[axis] * np.sin(np.radians(degrees))
    affine[:3, 3] = -80, 44, 600
    return affine


def rod(affine: np.ndarray, shape: tuple[int, int, int], top: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """HU of a rod with a soft edge along `axis` through the point `top`, sampled on a grid; in mm, from the affine alone."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3] - top
    away = np.linalg.norm(world - (world @ axis)[..., None] * axis, axis=-1)
    return np.clip(1000 - 120 * away, -1000, 1000)


@pytest.mark.parametrize("degrees", [7.0, 25.0, -18.5])
@pytest.mark.parametrize("axis", [0, 1])
def test_an_object_stays_where_it_is(degrees: float, axis: int) -> None:
    """The same rod, sampled on the sheared grid and straightened, and sampled on the upright grid directly."""
    shape = (40, 44, 14)
    affine = tilted(degrees, axis)
    middle = affine[:3, :3] @ (np.array(shape) / 2) + affine[:3, 3]
    direction = np.array([0.2, -0.3, 1.0]) / np.linalg.norm([0.2, -0.3, 1.0])
    hu = np.rint(rod(affine, shape, middle, direction)).astype(np.int16)
    upright, _ = straightened(Volume(hu, affine), None, WHERE)
    columns = upright.affine[:3, :3]
    assert np.abs((columns.T @ columns)[np.triu_indices(3, 1)]).max() < 1e-6
    expected = rod(upright.affine, upright.shape, middle, direction)
    inside = (upright.hu > -1000) & (expected > -900)
    assert inside.sum() > 500
    assert np.abs(upright.hu - expected)[inside].mean() < 12  # of linear interpolation in the plane
    assert (upright.hu > 500).sum() == pytest.approx((expected > 500).sum(), rel=0.05)


def test_the_voxel_keeps_its_volume_and_the_corners_their_place() -> None:
    affine = tilted(20)
    hu = np.random.default_rng(0).integers(-1000, 1000, (12, 14, 9)).astype(np.int16)
    upright, _ = straightened(Volume(hu, affine), None, WHERE)
    assert np.linalg.det(upright.affine[:3, :3]) == pytest.approx(np.linalg.det(affine[:3, :3]))
    index = np.linalg.inv(upright.affine) @ affine @ [0, 0, 0, 1]
    assert np.allclose(index, np.rint(index), atol=1e-6)
    i, j, k, _ = np.rint(index).astype(int)
    assert upright.hu[i, j, k] == hu[0, 0, 0]
    last = np.linalg.inv(upright.affine) @ affine @ [11, 13, 8, 1]
    assert all(-0.5 <= one <= n - 0.5 for one, n in zip(last[:3], upright.shape, strict=True))


def test_the_mask_moves_with_its_image() -> None:
    affine = tilted(20)
    hu = np.full((20, 30, 9), -1000, np.int16)
    hu[6:12, 8:20] = 500
    upright, labels = straightened(Volume(hu, affine), LabelMap((hu > 0).astype(np.uint8), affine, {1: "a"}), WHERE)
    assert labels is not None
    assert np.array_equal(labels.affine, upright.affine)
    assert labels.shape == upright.shape
    assert np.mean((upright.hu > -250) == (labels.labels > 0)) > 0.99


def test_upright_and_oblique_grids_are_left_alone() -> None:
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    for matrix in (
        np.diag([1.0, 1, 3]),
        turn @ np.diag([1.0, 2, 3]),
        np.array([[1, 0, 0.001], [0, 1, 0], [0, 0, 3.0]]),
    ):
        affine = np.eye(4)
        affine[:3, :3] = matrix
        assert shear_of(affine, (50, 50, 50)) is None


def test_a_grid_without_right_angles_is_refused() -> None:
    affine = np.eye(4)
    affine[:3, :3] = [[1, 0.3, 0.2], [0, 1, 0.4], [0, 0, 1]]
    with pytest.raises(UserError, match="scan: its affine is sheared"):
        straightened(Volume(np.zeros((9, 9, 9), np.int16), affine), None, WHERE)


def test_labels_keep_their_values_and_stay_on_their_object() -> None:
    """A value between 0 and 200 would be a label of something else."""
    shape, affine = (40, 44, 14), tilted(-18.5)
    middle = affine[:3, :3] @ (np.array(shape) / 2) + affine[:3, 3]
    hu = rod(affine, shape, middle, np.array([0.0, 0.0, 1.0]))
    labels = LabelMap(np.where(hu > 0, 200, 0).astype(np.uint8), affine, {200: "rod"})
    _, upright = straightened(Volume(np.rint(hu).astype(np.int16), affine), labels, WHERE)
    assert upright is not None and set(np.unique(upright.labels)) == {0, 200}
    expected = rod(upright.affine, upright.shape, middle, np.array([0.0, 0.0, 1.0])) > 0
    # A tilted stack ends in wedges, where the upright grid has no slice.
    both = ((upright.labels == 200) & expected).sum()
    assert both > 0.9 * (upright.labels == 200).sum()
