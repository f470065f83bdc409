"""Whole volumes for a 3D network: voxel size, windows, thin volumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator

from medlord_bench.plugins.extractors.whole_volumes import LEAST_SIDE, averaged, extended, resampled, windows


def smooth(shape: tuple[int, int, int]) -> np.ndarray:
    x, y, z = np.meshgrid(*(np.linspace(0, 3, n) for n in shape), indexing="ij")
    return np.rint(400 * np.sin(x) + 200 * np.cos(2 * y) - 100 * z).astype(np.int16)


@pytest.mark.parametrize("wanted", [(1.5, 1.5, 3.0), (0.5, 2.0, 0.7), (1.0, 1.0, 1.0)])
def test_resampling_is_linear_interpolation_at_multiples_of_the_voxel_size(wanted: tuple[float, float, float]) -> None:
    hu, spacing = smooth((20, 17, 23)), (0.8, 1.1, 1.3)
    found = resampled(hu, spacing, wanted).numpy()
    axes = [np.arange(n) * mm for n, mm in zip(hu.shape, spacing, strict=True)]
    places = [(np.arange(n) * mm).clip(max=axis[-1]) for n, mm, axis in zip(found.shape, wanted, axes, strict=True)]
    expected = RegularGridInterpolator(axes, hu.astype(float))(np.stack(np.meshgrid(*places, indexing="ij"), -1))
    np.testing.assert_allclose(found, expected, atol=1e-2)
    for n, old, new, made in zip(hu.shape, spacing, wanted, found.shape, strict=True):
        assert made == round((n - 1) * old / new + 1)


def test_the_same_voxel_size_changes_nothing() -> None:
    hu = smooth((12, 9, 7))
    assert (resampled(hu, (0.7, 0.7, 2.5), (0.7, 0.7, 2.5)).numpy() == hu).all()
    assert resampled(hu[:, :, :1], (1, 1, 5), (1, 1, 1)).shape == (12, 9, 1)


def test_windows_are_equal_parts_that_cover_the_volume_once() -> None:
    shape, largest = (100, 64, 33), (40, 64, 32)
    count, parts = np.zeros(shape, int), list(windows(shape, largest))
    for part in parts:
        count[part] += 1
        sizes = [one.stop - one.start for one in part]
        assert all(size <= most for size, most in zip(sizes, largest, strict=True))
        assert sizes[0] in (33, 34) and sizes[2] in (16, 17)
    assert (count == 1).all() and len(parts) == 3 * 1 * 2
    assert list(windows((5, 6, 7), (8, 8, 8))) == [(slice(0, 5), slice(0, 6), slice(0, 7))]


def test_a_thin_volume_is_extended_by_its_border() -> None:
    volume = torch.arange(4.0).view(1, 1, 4).expand(40, LEAST_SIDE, 4)
    made = extended(volume)
    assert made.shape == (40, LEAST_SIDE, LEAST_SIDE)
    assert made[0, 0].tolist() == [0.0] * 14 + [0.0, 1.0, 2.0, 3.0] + [3.0] * 14


def test_features_are_averaged_over_windows_by_their_voxels() -> None:
    volume = torch.rand(70, 40, 33)
    found = averaged(volume, (64, 64, 64), lambda part: torch.stack([part.mean(), part.new_tensor(1.0)]))
    assert found.shape == (1, 2) and found.dtype == np.float32
    assert found[0, 0] == pytest.approx(volume.mean().item(), rel=1e-5) and found[0, 1] == 1
