"""Onto a protocol's grid and back: against MONAI, SciPy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medlord_bench.contracts import Grid, LabelMap, Volume
from medlord_bench.volumes.grid import fit, fit_labels, resample, resample_labels, restore

shapes = st.tuples(*[st.integers(1, 12)] * 3)


def a_volume(
    shape: tuple[int, int, int], seed: int = 0, spacing: tuple[float, float, float] = (0.7, 0.9, 2.0)
) -> Volume:
    hu = np.random.default_rng(seed).integers(-1000, 1001, shape).astype(np.int16)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-30.0, 12.0, 400.0)
    return Volume(hu, affine)


def grid(shape: tuple[int, int, int], window: tuple[int, int] = (-1000, 1000)) -> Grid:
    return Grid(shape=shape, hu_window=window)


@given(source=shapes, target=shapes, seed=st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_crop_pad_gives_back_every_kept_voxel_exactly(
    source: tuple[int, int, int], target: tuple[int, int, int], seed: int
) -> None:
    volume = a_volume(source, seed)
    fitted = fit(volume, grid(target), "crop-pad")
    back = restore(fitted.volume, fitted.placement, outside=-1000)
    ones = Volume(np.ones(target, np.int16), fitted.volume.affine)
    kept = restore(ones, fitted.placement, outside=0).hu.astype(bool)
    assert fitted.volume.shape == target
    assert kept.sum() == np.prod(np.minimum(source, target))
    assert np.array_equal(back.hu[kept], volume.hu[kept])
    assert (back.hu[~kept] == -1000).all()
    assert np.array_equal(back.affine, volume.affine)


@given(source=shapes, target=shapes)
@settings(max_examples=40, deadline=None)
def test_crop_pad_lies_where_monai_puts_it(source: tuple[int, int, int], target: tuple[int, int, int]) -> None:
    from monai.transforms import CenterSpatialCrop, SpatialPad

    volume = a_volume(source)
    cropped = CenterSpatialCrop(target)(volume.hu[None].astype(np.float32))
    expected = SpatialPad(target, value=-1000)(cropped)
    assert np.array_equal(fit(volume, grid(target), "crop-pad").volume.hu, np.asarray(expected)[0])


@given(source=shapes, target=shapes)
@settings(max_examples=60, deadline=None)
def test_crop_pad_moves_no_voxel_in_the_world(source: tuple[int, int, int], target: tuple[int, int, int]) -> None:
    """A volume that holds its own world coordinate still does so after cropping and padding."""
    index = np.stack(np.meshgrid(*map(np.arange, source), indexing="ij"), -1)
    hu = (index @ (1, 20, 400)).astype(np.int16)
    affine = np.array([[1.0, 0, 0, 5], [0, 2.0, 0, 6], [0, 0, 3.0, 7], [0, 0, 0, 1]])
    fitted = fit(Volume(hu, affine), Grid(shape=target, hu_window=(-9000, 9000)), "crop-pad").volume
    inverse = np.linalg.inv(affine) @ fitted.affine
    for place in np.argwhere(fitted.hu != -9000):
        assert fitted.hu[tuple(place)] == pytest.approx((inverse @ [*place, 1])[:3] @ (1, 20, 400))


@pytest.mark.parametrize("target", [(20, 9, 7), (5, 18, 31), (10, 9, 14)])
def test_enlarging_equals_scipy_trilinear(target: tuple[int, int, int]) -> None:
    from scipy.ndimage import map_coordinates

    volume = a_volume((10, 9, 14))
    fitted = fit(volume, grid(target), "resize")
    places = [(np.arange(m) + 0.5) * n / m - 0.5 for n, m in zip(volume.shape, target, strict=True)]
    coordinates = np.meshgrid(*places, indexing="ij")
    smooth = volume.hu.astype(np.float64)
    from scipy.ndimage import gaussian_filter1d

    for axis, (n, m) in enumerate(zip(volume.shape, target, strict=True)):
        if m < n:
            smooth = gaussian_filter1d(smooth, (n / m - 1) / 2, axis=axis, mode="nearest")
    expected = map_coordinates(smooth, coordinates, order=1, mode="nearest")
    assert np.abs(fitted.volume.hu - expected).max() <= 0.51


def test_enlarging_equals_monai_trilinear() -> None:
    from monai.transforms import Resize

    volume = a_volume((10, 9, 14))
    expected = np.asarray(Resize((20, 12, 28), mode="trilinear")(volume.hu[None].astype(np.float32)))[0]
    assert np.abs(fit(volume, grid((20, 12, 28)), "resize").volume.hu - expected).max() <= 0.51


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("target", [1, 2, 5])
def test_an_axis_of_one_voxel_is_repeated(axis: int, target: int) -> None:
    """There is nothing to interpolate with: the only neighbour of the voxel is itself."""
    shape, wanted = [4, 4, 4], [4, 4, 4]
    shape[axis], wanted[axis] = 1, target
    volume = a_volume((shape[0], shape[1], shape[2]))
    got = fit(volume, grid((wanted[0], wanted[1], wanted[2])), "resize").volume.hu
    assert np.array_equal(got, np.repeat(volume.hu, target, axis=axis))


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("target", [2, 3, 11])
def test_two_voxels_are_enlarged_as_numpy_interpolates(axis: int, target: int) -> None:
    """np.interp is constant beyond the two centres."""
    ends = np.array([-200.0, 600.0])
    hu = np.moveaxis(np.broadcast_to(ends, (3, 3, 2)), 2, axis).astype(np.int16)
    wanted = [3, 3, 3]
    wanted[axis] = target
    got = fit(Volume(hu, np.eye(4)), grid((wanted[0], wanted[1], wanted[2])), "resize").volume.hu
    expected = np.interp((np.arange(target) + 0.5) * 2 / target - 0.5, [0, 1], ends)
    assert np.abs(np.moveaxis(got, axis, 2)[0, 0] - expected).max() <= 0.5


def test_resize_keeps_the_field_of_view() -> None:
    volume = a_volume((10, 9, 14))
    fitted = fit(volume, grid((20, 3, 7)), "resize")
    assert np.allclose(np.array(fitted.volume.spacing) * (20, 3, 7), np.array(volume.spacing) * volume.shape)
    corner = np.array([-0.5, -0.5, -0.5, 1])
    assert np.allclose(fitted.placement.affine @ corner, volume.affine @ corner)
    far_old, far_new = np.array([9.5, 8.5, 13.5, 1]), np.array([19.5, 2.5, 6.5, 1])
    assert np.allclose(fitted.placement.affine @ far_new, volume.affine @ far_old)


def test_resizing_a_ramp_there_and_back_returns_it() -> None:
    ramp = np.broadcast_to((np.arange(12) * 50 - 300)[None, None, :], (6, 6, 12)).astype(np.int16)
    fitted = fit(Volume(ramp, np.eye(4)), grid((12, 6, 24)), "resize")
    back = restore(fitted.volume, fitted.placement)
    assert np.abs(back.hu[:, :, 2:-2].astype(int) - ramp[:, :, 2:-2]).max() <= 1


def test_values_are_clipped_before_they_are_mixed() -> None:
    """A column of -32768 beside soft tissue must not pull its neighbours below their own HU."""
    hu = np.full((8, 4, 4), 50, dtype=np.int16)
    hu[:4] = -32768
    got = fit(Volume(hu, np.eye(4)), grid((16, 4, 4)), "resize").volume.hu
    assert got.min() == -1000
    assert got[9:].min() == 50
    assert got[8].min() == round(0.75 * 50 - 0.25 * 1000)  # a quarter of the padding, clipped to -1000 first


def test_shrinking_does_not_alias() -> None:
    """Alternating slices of -1000 and 1000 have mean 0; without a blur one of the two would be picked."""
    hu = np.where(np.arange(64) % 2, 1000, -1000).astype(np.int16)[None, None, :].repeat(4, 0).repeat(4, 1)
    got = fit(Volume(hu, np.eye(4)), grid((4, 4, 16)), "resize").volume.hu
    assert np.abs(got[:, :, 2:-2]).max() < 60


def test_padding_is_the_window_s_low_end_and_background() -> None:
    volume = a_volume((4, 4, 4))
    fitted = fit(volume, grid((6, 6, 6), (-800, 900)), "crop-pad").volume
    assert (fitted.hu[0] == -800).all()
    assert fitted.hu.min() >= -800
    assert fitted.hu.max() <= 900
    labels = fit_labels(LabelMap(np.ones((4, 4, 4), np.uint8), volume.affine, {1: "a"}), grid((6, 6, 6)), "crop-pad")
    assert labels.labels.sum() == 64
    assert np.array_equal(labels.affine, fitted.affine)


@pytest.mark.parametrize("how", ["crop-pad", "resize"])
@pytest.mark.parametrize("target", [(20, 5, 12), (6, 18, 7)])
def test_labels_stay_on_their_image(how: str, target: tuple[int, int, int]) -> None:
    """Image and labels made of the same blocks still agree after both were fitted."""
    blocks = np.zeros((10, 9, 12), np.uint8)
    blocks[2:8, 3:7, 3:10] = 1
    image = Volume(np.where(blocks, 1000, -1000).astype(np.int16), np.eye(4))
    fitted = fit(image, grid(target), how).volume  # type: ignore[arg-type]
    labels = fit_labels(LabelMap(blocks, np.eye(4), {1: "a"}), grid(target), how)  # type: ignore[arg-type]
    assert ((fitted.hu > 0) == (labels.labels == 1)).mean() > 0.93
    assert np.array_equal(labels.affine, fitted.affine)


def test_resampling_gives_the_spacing_about_the_same_centre() -> None:
    volume = a_volume((20, 16, 11), spacing=(1.0, 1.5, 3.0))
    got = resample(volume, (2.0, 2.0, 2.0), (-1000, 1000))
    assert got.shape == (10, 12, 16)
    assert np.allclose(got.spacing, 2.0)
    middle = [*((np.array(volume.shape) - 1) / 2), 1]
    assert np.allclose(volume.affine @ middle, got.affine @ [*((np.array(got.shape) - 1) / 2), 1])


def test_resampling_keeps_a_ball_s_volume_in_millilitres() -> None:
    axes = np.meshgrid(*[np.arange(40) - 19.5] * 3, indexing="ij")
    ball = (sum(a**2 for a in axes) < 15**2).astype(np.uint8)
    labels = LabelMap(ball, np.eye(4), {1: "ball"})
    got = resample_labels(labels, (1.6, 0.7, 2.3))
    millilitres = got.labels.sum() * np.prod(np.linalg.norm(got.affine[:3, :3], axis=0))
    assert millilitres == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.03)
