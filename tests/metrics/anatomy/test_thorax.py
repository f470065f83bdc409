"""Mediastinum, vessels and bone by HU alone: closed forms and known faults."""

from __future__ import annotations

import numpy as np
import pytest

from medlord_bench.metrics.anatomy.thorax import bone, bones, mediastinum, vessels

MM = (1.5, 1.5, 1.5)


def two_lungs(gap: int) -> np.ndarray:
    lungs = np.zeros((60, 40, 20), bool)
    lungs[5 : 30 - gap // 2, 5:35, 2:18] = lungs[30 + gap // 2 : 55, 5:35, 2:18] = True
    return lungs


@pytest.mark.parametrize("gap", [10, 24])
def test_the_mediastinum_is_the_gap_over_the_width_of_the_lungs(gap: int) -> None:
    assert mediastinum(two_lungs(gap)) == pytest.approx((gap / 50, gap / 50))


def test_too_few_slices_of_lung_have_no_mediastinum() -> None:
    assert np.isnan(mediastinum(two_lungs(10)[:, :, :8])).all()
    assert np.isnan(mediastinum(np.zeros((10, 10, 20), bool))).all()


def test_removed_vessels_are_seen() -> None:
    rng = np.random.default_rng(0)
    hu = rng.normal(-850, 25, (48, 48, 48)).astype(np.float32)
    lungs = np.ones(hu.shape, bool)
    empty = vessels(hu, lungs, MM)
    x, y, _ = np.indices(hu.shape)
    for a, b in ((12, 12), (30, 20), (20, 36)):
        hu[(x - a) ** 2 + (y - b) ** 2 < 1.5**2] = 40
    found = vessels(hu, lungs, MM)
    assert max(empty) < 0.002
    assert found[0] == pytest.approx(3 * 9 / 48**2, rel=0.2) and min(found[1:]) > 0.008


def test_too_little_lung_has_no_vessels() -> None:
    assert np.isnan(vessels(np.zeros((8, 8, 8), np.float32), np.ones((8, 8, 8), bool), MM)).all()


def test_bone_and_contrast_are_kept_apart() -> None:
    rng = np.random.default_rng(1)
    hu = rng.normal(40, 12, (40, 40, 30)).astype(np.float32)
    x, y, _ = np.indices(hu.shape)
    hu[(x - 12) ** 2 + (y - 20) ** 2 < 7**2] += 300  # contrast-filled: even
    spine = (x - 30) ** 2 + (y - 20) ** 2 < 5**2
    hu[spine] = rng.normal(420, 130, spine.sum())
    mm = (3.0, 3.0, 3.0)
    found = bones(hu, mm)
    assert found[spine].mean() > 0.75 and found[~spine].mean() < 0.01
    share, level = bone(hu, mm)
    assert share == pytest.approx(spine.mean(), rel=0.25) and level == pytest.approx(430, abs=40)
    hu[spine] = 40
    assert bone(hu, mm)[0] < share / 10


@pytest.mark.parametrize("level", [-1000, 40, 1000])
def test_a_constant_volume_has_no_hu_of_bone(level: int) -> None:
    share, value = bone(np.full((10, 10, 10), level, np.float32), (3.0, 3.0, 3.0))
    assert np.isnan(value) and (np.isnan(share) if level == -1000 else share == 0)


@pytest.mark.parametrize(("voxels", "known"), [(19, False), (20, True)])
def test_twenty_voxels_of_bone_have_a_level(voxels: int, known: bool) -> None:
    """Single bright voxels, so that none of them is the even core of a vessel."""
    hu = np.full((40, 40, 10), 0, np.float32)
    places = [(x, y) for x in range(2, 40, 6) for y in range(2, 40, 6)][:voxels]
    for x, y in places:
        hu[x, y, 5] = 700
    share, level = bone(hu, (3.0, 3.0, 3.0))
    assert share == pytest.approx(voxels / hu.size)
    assert level == pytest.approx(700 if known else np.nan, nan_ok=True)
