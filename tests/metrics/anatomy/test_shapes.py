"""Shapes and places: closed forms on boxes and balls."""

from __future__ import annotations

import numpy as np
import pytest

from medlord_bench.contracts import LabelMap
from medlord_bench.metrics.anatomy.shapes import Body, Regions, shape_values

MM = (2.0, 3.0, 4.0)


def test_a_box_has_its_extent_place_and_share() -> None:
    mask = np.zeros((20, 20, 20), bool)
    mask[4:10, 5:9, 6:8] = True
    body = Body(np.array([2.0, 3.0, 4.0]), np.array([30.0, 40.0, 50.0]))
    found = shape_values(mask, MM, body)
    np.testing.assert_allclose(found[:3], [6 * 2 / 30, 4 * 3 / 40, 2 * 4 / 50])
    np.testing.assert_allclose(found[3:6], [(14 - 2) / 30, (21 - 3) / 40, (28 - 4) / 50])
    assert found[7] == pytest.approx(12 * 12 * 8 / (30 * 40 * 50))


@pytest.mark.parametrize("mm", [(1.0, 1.0, 1.0), (1.0, 1.0, 2.0)])
def test_sphericity_of_a_ball_is_1_and_of_a_rod_that_of_a_cylinder(mm: tuple[float, float, float]) -> None:
    body = Body(np.zeros(3), np.full(3, 100.0))
    x, y, z = ((np.indices((64, 64, 64)).T - 31.5) * mm).T
    ball = shape_values(x**2 + y**2 + z**2 < 24**2, mm, body)[6]
    assert ball == pytest.approx(1, abs=0.03)
    rod = (x + y) ** 2 / 2 + z**2 < 6**2  # along a diagonal
    rod &= np.abs(x - y) < 40
    found = shape_values(rod, mm, body)[6]
    r, h = 6.0, 2 * 40 / np.sqrt(2)
    cylinder = np.pi ** (1 / 3) * (6 * np.pi * r**2 * h) ** (2 / 3) / (2 * np.pi * r * h + 2 * np.pi * r**2)
    assert found == pytest.approx(cylinder, rel=0.1)


def test_a_voxel_and_nothing() -> None:
    body = Body(np.zeros(3), np.ones(3))
    one = np.zeros((5, 5, 5), bool)
    assert np.isnan(shape_values(one, MM, body)).all()
    one[0, 4, 2] = True
    assert np.isfinite(shape_values(one, MM, body)).all()


def test_the_body_is_a_box_of_tissue_or_the_whole_patch() -> None:
    hu = np.full((20, 20, 10), -1000.0, np.float32)
    assert Body.of(hu, MM).size.tolist() == [40, 60, 40]
    hu[5:15, 4:16] = 30
    found = Body.of(hu, MM)
    assert found.low.tolist() == [10, 12, 0] and found.size.tolist() == [20, 36, 40]


def test_the_distance_of_two_planes() -> None:
    values = np.zeros((12, 6, 6), np.uint8)
    values[2], values[8] = 1, 2
    regions = Regions(LabelMap(values, np.eye(4), {1: "aorta", 2: "lung_left"}), MM)
    assert regions.distance("aorta", "lungs") == pytest.approx(6 * 2.0)
    assert np.isnan(regions.distance("heart", "lungs")) and np.isnan(regions.distance("aorta", "spine"))


def test_blocks_have_the_label_of_their_middle() -> None:
    values = np.zeros((6, 6, 6), np.uint8)
    values[1] = 1
    box = (slice(None),) * 3
    regions = Regions.of(LabelMap(values, np.eye(4), {1: "a"}), (3, 3, 2), (3.0, 3.0, 2.0), box)
    assert regions.mask("a").shape == (2, 2, 3) and regions.mask("a")[0].all() and not regions.mask("a")[1].any()
