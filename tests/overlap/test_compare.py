"""DSC, NSD and HD95 of label maps against closed forms, brute force and MONAI."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.distance import cdist

from medlord_bench.contracts import LabelMap
from medlord_bench.overlap import compare as overlap

SPACING = (0.7, 1.3, 2.5)


def blob(seed: int, shape: tuple[int, int, int] = (20, 18, 12)) -> np.ndarray:
    """A smooth random mask, in one piece or several, that reaches the border in places."""
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2) > 0.02


def label_map(labels: np.ndarray, names: dict[int, str]) -> LabelMap:
    return LabelMap(labels.astype(np.uint8), np.eye(4), names)


def compared(made: np.ndarray, mask: np.ndarray, spacing: tuple[float, float, float], tolerance: float = 1.0) -> dict:
    state = overlap.compare(label_map(made, {1: "a"}), label_map(mask, {1: "a"}), ["a"], spacing, tolerance)
    return {name: values[0] for name, values in state.items()}


def brute_force(made: np.ndarray, mask: np.ndarray, spacing: tuple[float, float, float], tolerance: float) -> dict:
    """By definition: every distance between two surfaces, which are found by erosion."""
    points = []
    for part in (made, mask):
        inner = ndimage.binary_erosion(part, ndimage.generate_binary_structure(3, 1), border_value=0)
        points.append(np.argwhere(part & ~inner) * spacing)
    apart = cdist(*points)
    there, back = apart.min(1), apart.min(0)
    return {
        "dsc": 2 * (made & mask).sum() / (made.sum() + mask.sum()),
        "nsd": ((there <= tolerance).sum() + (back <= tolerance).sum()) / (len(there) + len(back)),
        "hd95": max(np.percentile(there, 95), np.percentile(back, 95)),
    }


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_the_definition_also_where_voxels_are_not_cubes(seed: int) -> None:
    made, mask = blob(seed), blob(seed + 100)
    found, expected = compared(made, mask, SPACING, 1.5), brute_force(made, mask, SPACING, 1.5)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12), name
    assert (found["made_voxels"], found["mask_voxels"]) == (made.sum(), mask.sum())


@pytest.mark.parametrize("seed", range(3))
def test_surface_scores_are_monais_per_case_ones(seed: int) -> None:
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

    made, mask = blob(seed), np.roll(blob(seed), 2, axis=seed)
    tensors = [torch.from_numpy(part[None, None].astype(np.float32)) for part in (made, mask)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        hd95 = compute_hausdorff_distance(*tensors, include_background=True, percentile=95, spacing=SPACING)
        nsd = compute_surface_dice(*tensors, [1.5], include_background=True, spacing=SPACING)
    found = compared(made, mask, SPACING, 1.5)
    assert found["dsc"] == pytest.approx(compute_dice(*tensors).item(), rel=1e-6)
    assert found["hd95"] == pytest.approx(hd95.item(), rel=1e-5)
    assert found["nsd"] == pytest.approx(nsd.item(), rel=1e-5)


@pytest.mark.parametrize(("axis", "steps"), [(0, 2), (1, 3), (2, 1)])
def test_a_box_shifted_along_an_axis_is_as_far_off_as_its_steps_in_mm(axis: int, steps: int) -> None:
    mask = np.zeros((24, 24, 24), dtype=bool)
    mask[6:16, 6:16, 6:16] = True
    found = compared(np.roll(mask, steps, axis=axis), mask, SPACING, tolerance=steps * SPACING[axis])
    assert found["dsc"] == pytest.approx((10 - steps) / 10)
    assert found["hd95"] == pytest.approx(steps * SPACING[axis])
    assert found["nsd"] == 1
    closer = compared(np.roll(mask, steps, axis=axis), mask, SPACING, tolerance=0.99 * steps * SPACING[axis])
    assert closer["nsd"] < 1


def test_a_smaller_ball_is_off_by_the_difference_of_the_radii() -> None:
    away = np.sqrt(sum(axis**2 for axis in np.ogrid[-20:21, -20:21, -20:21]))
    small, large = away <= 12, away <= 18
    found = compared(small, large, (1.5, 1.5, 1.5), tolerance=1.5)
    assert found["dsc"] == pytest.approx(2 / (1 + (18 / 12) ** 3), abs=0.01)
    assert found["hd95"] == pytest.approx(9.0, abs=1.5)
    assert found["nsd"] == 0
    assert compared(small, small, (1.5, 1.5, 1.5))["hd95"] == 0


def test_what_lies_elsewhere_in_the_grid_changes_nothing() -> None:
    made, mask = blob(1), blob(2)
    before = compared(made, mask, SPACING)
    for place in ([(3, 40), (0, 9), (7, 0)], [(0, 0), (5, 5), (60, 1)]):
        after = compared(np.pad(made, place), np.pad(mask, place), SPACING)
        # Beyond the grid is outside, as is the padding: surfaces stay the same.
        assert after == pytest.approx(before, rel=1e-12)


def test_lobes_make_up_lungs_as_left_and_right_do() -> None:
    names = {1: "lung_left", 2: "lung_right", 3: "aorta"}
    lobes = {
        1: "lung_upper_lobe_left",
        2: "lung_lower_lobe_left",
        3: "lung_upper_lobe_right",
        4: "lung_middle_lobe_right",
        5: "lung_lower_lobe_right",
    }
    mask = np.zeros((12, 8, 10), dtype=np.uint8)
    mask[1:5], mask[7:11], mask[5:7, 3:5] = 1, 2, 3
    made = np.zeros_like(mask)
    for value, (x, z) in {1: (1, 0), 2: (1, 5), 3: (7, 0), 4: (7, 5)}.items():
        made[x : x + 4, :, z : z + 5] = value
    made[7:11, :, 8:] = 5
    state = overlap.compare(label_map(made, lobes), label_map(mask, names), ["lungs", "aorta"], SPACING, 1.0)
    assert state["dsc"][0] == 1 and state["nsd"][0] == 1 and state["hd95"][0] == 0
    assert state["mask_voxels"][0] == state["made_voxels"][0] == 2 * 4 * 8 * 10
    assert state["made_voxels"][1] == overlap.UNKNOWN and np.isnan(state["dsc"][1])


def test_two_labels_of_one_name_are_one_region() -> None:
    made = np.zeros((6, 6, 6), dtype=np.uint8)
    made[1:3], made[4:5] = 1, 2
    state = overlap.compare(label_map(made, {1: "a", 2: "a"}), label_map(made > 0, {0: "a", 1: "a"}), ["a"], None, 1.0)
    assert state["dsc"][0] == 1 and state["made_voxels"][0] == 3 * 36


def test_an_absent_region_has_no_score_and_no_mask_no_voxels() -> None:
    empty, full = np.zeros((5, 5, 5)), np.ones((5, 5, 5))
    for made, mask in ((empty, full), (full, empty), (empty, empty)):
        found = compared(made, mask, SPACING)
        assert all(np.isnan(found[name]) for name in ("dsc", "nsd", "hd95"))
        assert (found["made_voxels"], found["mask_voxels"]) == (made.sum(), mask.sum())
    state = overlap.compare(label_map(full, {1: "a"}), None, ["a"], SPACING, 1.0)
    assert state["made_voxels"][0] == 125 and state["mask_voxels"][0] == overlap.UNKNOWN


def test_without_a_spacing_there_is_a_dsc_and_nothing_in_mm() -> None:
    found = overlap.compare(label_map(blob(1), {1: "a"}), label_map(blob(2), {1: "a"}), ["a"], None, 1.0)
    assert 0 < found["dsc"][0] < 1 and np.isnan(found["nsd"][0]) and np.isnan(found["hd95"][0])


def test_scores_fall_as_a_region_moves_away() -> None:
    away = np.sqrt(sum(axis**2 for axis in np.ogrid[-20:21, -20:21, -20:21]))
    found = [compared(np.roll(away <= 8, steps, 0), away <= 8, (1, 1, 1)) for steps in (0, 2, 5, 9)]
    for nearer, farther in pairwise(found):
        assert nearer["dsc"] > farther["dsc"] and nearer["hd95"] < farther["hd95"] and nearer["nsd"] > farther["nsd"]
