"""The parts of the memorisation audit against closed forms, SciPy and simulation."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from medlord_bench.metrics.memorisation import matching
from medlord_bench.metrics.memorisation.audit import Found, Nearest, Threshold, merged, nearest
from medlord_bench.metrics.memorisation.matching import Level, Matcher, Motion
from medlord_bench.volumes.thumbnails import thumbnail, thumbnail_shape


def smooth_field(seed: int, shape: tuple[int, ...] = (24, 20, 16), sigma: float = 2.0) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 1, shape), sigma)
    return (noise / noise.std()).astype(np.float32)


def found(*pairs: tuple[int, float]) -> Found:
    training, correlation = zip(*pairs, strict=True)
    return Found(np.array(training), np.array(correlation))


# --------------------------------------------------------------------------------------------------------- pictures
def test_boxes_that_divide_the_volume_are_plain_means_and_others_keep_the_mean() -> None:
    hu = np.random.default_rng(0).integers(-1500, 1500, (80, 40, 80)).astype(np.int16)
    expected = hu.clip(-1000, 1000).reshape(40, 2, 20, 2, 40, 2).mean((1, 3, 5))
    np.testing.assert_allclose(thumbnail(hu, (-1000, 1000), 40), expected, atol=1e-3)
    odd = hu[:71, :33, :77]
    assert thumbnail(odd, (-1000, 1000), 40).mean() == pytest.approx(odd.clip(-1000, 1000).mean(), abs=1e-2)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((64, 64, 48), (40, 40, 30)),
        ((512, 512, 256), (40, 40, 20)),
        ((512, 512, 100), (40, 40, 16)),
        ((24, 24, 24), (24, 24, 24)),
        ((9, 9, 1), (8, 8, 4)),
    ],
)
def test_pictures_have_40_cells_on_the_longest_side_and_stay_even(
    shape: tuple[int, int, int], expected: tuple[int, int, int]
) -> None:
    assert thumbnail_shape(shape, 40) == expected
    assert thumbnail(np.zeros(shape, np.int16), (-1000, 1000), 40).shape == expected


@pytest.mark.slow
def test_a_large_volume_takes_little_memory_and_time(tmp_path: Path) -> None:
    import time
    import tracemalloc

    np.save(tmp_path / "v.npy", np.zeros((512, 512, 256), np.int16))
    volume = np.load(tmp_path / "v.npy", mmap_mode="r")
    tracemalloc.start()
    start = time.monotonic()
    thumbnail(volume, (-1000, 1000), 40)
    assert time.monotonic() - start < 15 and tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()


# --------------------------------------------------------------------------------------------------------- matching
@pytest.mark.parametrize("sigma", [0, 0.5, 1.4])
def test_smoothing_is_scipys(sigma: float) -> None:
    picture = smooth_field(0, sigma=0.5)
    made = matching.smooth(torch.from_numpy(picture)[None], sigma)[0].numpy()
    np.testing.assert_allclose(made, ndimage.gaussian_filter(picture, sigma, mode="nearest"), atol=1e-5)


def test_tangents_are_what_a_small_motion_does() -> None:
    level = Level((24, 20, 16), (1.0, 1.5, 2.0))
    picture = torch.from_numpy(smooth_field(0))[None]
    tangents, step = level.tangents(picture)[0], 1e-2
    for which in range(6):
        small = torch.zeros(1, 6)
        small[0, which] = step
        ahead, behind = (level.moved(picture, Motion.none(1).after_inverse(sign * small)) for sign in (-1, 1))
        slope = ((ahead - behind) / (2 * step))[0]
        assert torch.corrcoef(torch.stack([slope, tangents[which]]))[0, 1] > 0.97
        assert slope.norm() == pytest.approx(tangents[which].norm().item(), rel=0.05)


def test_registration_undoes_a_known_motion() -> None:
    cell = np.array([1.0, 1.5, 2.0])
    picture = smooth_field(3)
    turn = Rotation.from_euler("xyz", [4, -5, 6], degrees=True).as_matrix()
    matrix = turn * cell / cell[:, None]
    centre, shift = (np.array(picture.shape) - 1) / 2, np.array([1.0, -0.7, 0.5])
    away = ndimage.affine_transform(picture, matrix, centre - matrix @ centre + shift, order=3, mode="nearest")
    level = Level(picture.shape, cell)
    moving, fixed = (torch.from_numpy(image.astype(np.float32))[None] for image in (away, picture))
    motion = matching.register(level, moving, fixed, Motion.none(1), 12)
    # away(x) = picture(turn x + shift): read at turn^-1 (x - shift) it is the picture again
    assert motion.turn[0].numpy() == pytest.approx(turn.T, abs=5e-3)
    assert motion.shift[0].numpy() == pytest.approx(-turn.T @ (shift * cell), abs=0.05)


def test_a_volume_is_found_in_all_flips_with_the_right_index_and_never_in_its_own_patient() -> None:
    training = np.stack([smooth_field(seed, (24, 24, 24)) * 200 for seed in range(12)])
    matcher = Matcher(training, [f"p{seed // 2}" for seed in range(12)], (1, 1, 1), 3)
    for i in range(8):
        copy = np.flip(training[i], [axis for axis in range(3) if i >> axis & 1]).copy()
        one = matcher.find(copy)
        assert one.training[one.likeness.argmax()] == i and one.likeness.max() > 0.999
        assert not {2 * (i // 2), 2 * (i // 2) + 1} & set(matcher.find(copy, f"p{i // 2}").training)


def test_a_constant_volume_correlates_with_nothing() -> None:
    training = np.stack([smooth_field(seed, (24, 24, 24)) * 200 for seed in range(8)])
    one = Matcher(training, list("abcdefgh"), (1, 1, 1), 3).find(np.full((24, 24, 24), -1000, np.float32))
    assert np.abs(one.likeness).max() < 0.2 and np.isfinite(one.likeness).all()


# ------------------------------------------------------------------------------------------- neighbours and threshold
def test_relative_distance_is_the_nearest_patient_s_over_the_mean_of_the_next() -> None:
    patients = ["a", "a", "b", "c", "d"]
    one = nearest(found((0, 0.5), (1, 0.9), (2, 0.6), (3, 0.4), (4, 0.0)), patients, 3)
    assert (one.training, one.correlation) == (1, pytest.approx(0.9))
    assert one.relative == pytest.approx(0.1 / np.mean([0.4, 0.6]))
    without = nearest(found((0, 0.5), (1, 0.9), (2, 0.6), (3, 0.4)), patients, 3, own="a")
    assert (without.training, without.relative) == (2, pytest.approx(0.4 / 0.6))
    alone = nearest(found((0, 0.5), (1, 0.9)), patients, 3)
    assert alone.relative == pytest.approx(0.1)


def test_twins_become_one_patient_also_in_a_chain() -> None:
    patients = ["a", "b", "c", "d"]
    left_out = [Nearest(1, 0.99, 0.05), Nearest(0, 0.99, 0.05), Nearest(1, 0.99, 0.02), Nearest(0, 0.5, 0.8)]
    assert merged(left_out, patients) == ["a", "a", "a", "d"]
    assert merged([Nearest(1, 0.5, 0.8)] * 4, patients) == patients


def test_the_threshold_keeps_its_nominal_rate_in_simulation() -> None:
    rng = np.random.default_rng(0)
    for n, rate in ((24, 0.05), (8, 0.05), (120, 0.05)):
        below = []
        for _ in range(4000):
            draws = rng.beta(5, 3, n + 1)
            threshold = Threshold.of(draws[:n].tolist(), rate, 1.0)
            below.append(draws[n] < threshold.value)
        assert np.mean(below) == pytest.approx(threshold.nominal, abs=0.015)
    assert Threshold.of([0.5] * 24, 0.05, 1.0).nominal == 1 / 25
    assert Threshold.of([0.5] * 8, 0.05, 1.0).nominal == 1 / 9  # more than asked for: 8 volumes know no 5 %
    assert Threshold.of([0.5] * 119, 0.05, 1.0).nominal == 6 / 120


def test_the_largest_allowed_caps_the_threshold_and_says_so() -> None:
    capped = Threshold.of([0.8, 0.9, 1.0], 0.05, 1 / 3)
    assert (capped.value, capped.capped) == (1 / 3, True)
    assert not Threshold.of([0.2, 0.9, 1.0], 0.05, 1 / 3).capped


def test_p_value_is_that_of_all_orders() -> None:
    """Of 4 left-out and 3 further values in random order: how often do so many of the 3 lie below the first of the 4?"""
    threshold = Threshold(0.0, 1, 4, False)
    counts = [sum(place[4 + i] < min(place[:4]) for i in range(3)) for place in permutations(range(7))]
    for copies in range(4):
        expected = np.mean([count >= copies for count in counts])
        assert threshold.p_value(copies, 3) == pytest.approx(expected, rel=1e-9)
