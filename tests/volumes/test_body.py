"""Body and lungs by HU alone: patches, grids without spacing, volumes without either."""

from __future__ import annotations

import numpy as np
import pytest

from medlord_bench.volumes.body import body_space, closed, largest_tissue, lung_space, nominal, opened, working

MM = (3.0, 3.0, 3.0)


def thorax() -> np.ndarray:
    """HU (48, 40, 24) on 3 mm: room air, a body, two lungs with a vessel each, and a thin table."""
    hu = np.full((48, 40, 24), -1000.0, np.float32)
    hu[6:42, 8:34] = 40
    for start in (9, 27):
        hu[start : start + 12, 12:30] = -850
        hu[start + 5 : start + 7, 20:22] = 60
    hu[2:46, 2:3] = 100
    return hu


def test_lungs_have_their_vessels_and_no_room_air() -> None:
    found = lung_space(thorax(), MM)
    assert found[14:16, 20:22, 12].all() and not found[24, 20].any() and not found[:4].any()
    truth = 2 * 12 * 18 * 24
    assert abs(found.sum() - truth) < 0.12 * truth


def test_a_patch_of_lung_alone_is_lung() -> None:
    rng = np.random.default_rng(0)
    assert lung_space(rng.normal(-850, 40, (20, 20, 20)).astype(np.float32), MM).mean() > 0.95


@pytest.mark.parametrize("level", [-1000.0, 40.0, 1000.0])
def test_a_constant_volume_has_no_lung(level: float) -> None:
    hu = np.full((12, 12, 12), level, np.float32)
    assert not lung_space(hu, MM).any()
    assert body_space(hu, MM).any() == (level > -400)


def test_the_body_is_the_largest_piece_with_its_lungs_and_no_thin_table() -> None:
    hu = thorax()
    assert not largest_tissue(hu, MM)[:, 2].any()
    body = body_space(hu, MM)
    assert body[15, 20, 12] and not body[:, 2].any() and not body[2].any()


def test_opening_and_closing_by_a_ball() -> None:
    mask = np.zeros((21, 21, 21), bool)
    mask[2:19, 2:19, 2:19] = True
    mask[10] = False  # a gap of one voxel
    mask[20, 10] = True  # a thread
    assert closed(mask, MM, 6.0)[10, 10, 10]
    assert not opened(mask, MM, 4.0)[20].any() and opened(mask, MM, 4.0)[5, 10, 10]


def test_without_spacing_a_grid_shows_a_thorax() -> None:
    assert nominal((700, 350, 10), None) == (0.5, 0.5, 0.5)
    assert nominal((700, 350, 10), (1.0, 1.0, 2.0)) == (1.0, 1.0, 2.0)


def test_blocks_are_of_about_the_size_asked_for() -> None:
    coarse, mm = working(np.zeros((32, 32, 16), np.int16), (0.7, 0.7, 5.0), 3.0)
    assert coarse.shape == (8, 8, 16) and mm == pytest.approx((2.8, 2.8, 5.0))
