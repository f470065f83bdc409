"""The descriptors of a volume: against closed forms, independent arithmetic, and what a volume can lack."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from medlord_bench.contracts import LabelMap
from medlord_bench.metrics.tissue.blocks import Blocks
from medlord_bench.metrics.tissue.classes import CLASSES
from medlord_bench.metrics.tissue.describe import OF_CLASSES, _level, _spread, describe, descriptors
from medlord_bench.metrics.tissue.edges import widths
from medlord_bench.metrics.tissue.spectrum import mean_frequencies

HU = NDArray[np.int16]


def slabs(seed: int = 0, noise: float = 10.0, shape: tuple[int, int, int] = (108, 48, 48)) -> HU:
    """Air, lung, fat, soft tissue, contrast and textured bone along X, with white noise."""
    rng = np.random.default_rng(seed)
    levels = np.repeat([-990.0, -850.0, -100.0, 50.0, 300.0, 500.0], shape[0] // 6)
    hu = levels[:, None, None] + noise * rng.standard_normal(shape)
    hu[5 * shape[0] // 6 :] += 300 * rng.uniform(-1, 1, (shape[0] // 6, *shape[1:]))
    return np.rint(hu).astype(np.int16)


def named(hu: HU) -> dict[tuple[str, str], float]:
    return dict(zip([(one.quantity, one.region) for one in OF_CLASSES], describe(hu), strict=True))


def test_blocks_have_the_mean_and_the_deviation_about_a_fitted_plane() -> None:
    hu = np.random.default_rng(0).integers(-1000, 1000, (7, 6, 9)).astype(np.int16)
    found = Blocks.of(hu)
    assert found.mean.shape == (2, 2, 3)
    part = hu[3:6, 0:3, 6:9].astype(float)
    places = np.indices((3, 3, 3)).reshape(3, -1).T
    design = np.column_stack([np.ones(27), places])
    _, rest, *_ = np.linalg.lstsq(design, part.ravel(), rcond=None)
    assert found.mean[1, 0, 2] == pytest.approx(part.mean(), rel=1e-5)
    assert found.noise[1, 0, 2] == pytest.approx(np.sqrt(rest[0] / 23), rel=1e-5)


def test_each_class_has_its_hu_noise_and_share() -> None:
    found = named(slabs())
    expected = dict(zip(CLASSES, (-990, -850, -100, 50, 300), strict=False))
    for name, level in expected.items():
        assert found["tissue_hu", name] == pytest.approx(level, abs=1)
    for name in ("air", "fat", "soft tissue", "contrast"):
        assert found["tissue_noise", name] == pytest.approx(9, abs=0.6)  # the lower quartile of 10
        assert found["tissue_spread", name] == pytest.approx(10 / 27**0.5, abs=0.4)  # of means of 27 voxels
    for name in ("lung", "fat", "contrast"):
        assert found["tissue_share", name] == pytest.approx(1 / 5, abs=0.03)
    assert found["tissue_hu", "bone"] == pytest.approx(500, abs=20)


def test_the_spectrum_equals_a_plain_computation_square_by_square() -> None:
    rng = np.random.default_rng(1)
    hu = np.rint(gaussian_filter1d(rng.standard_normal((16, 16, 24)) * 20, 0.7, axis=0)).astype(np.int16)
    total, along = np.zeros((8, 8)), np.fft.fftfreq(8)
    design = np.column_stack([np.ones(64), np.indices((8, 8)).reshape(2, -1).T])
    for z in range(24):
        for x in (0, 8):
            for y in (0, 8):
                square = hu[x : x + 8, y : y + 8, z].astype(float).ravel()
                rest = square - design @ np.linalg.lstsq(design, square, rcond=None)[0]
                total += np.abs(np.fft.fft2(rest.reshape(8, 8))) ** 2
    expected = sum(np.hypot(along[i], along[j]) * total[i, j] for i in range(8) for j in range(8)) / total.sum()
    assert mean_frequencies(hu, 1000.0)["axial"] == pytest.approx(expected, rel=1e-5)


def test_white_noise_has_the_frequency_that_the_docs_name() -> None:
    hu = np.rint(np.random.default_rng(2).standard_normal((64, 64, 64)) * 30).astype(np.int16)
    for value in mean_frequencies(hu, 30.0).values():
        assert value == pytest.approx(0.40, abs=0.005)


@pytest.mark.parametrize(("level", "read"), [(-200, False), (-199, True), (129, True), (130, False)])
def test_the_spectrum_is_that_of_fat_and_soft_tissue(level: int, read: bool) -> None:
    """Noise without a mean and slopes, so that the mean of each square is the level itself."""
    x, y, z = np.indices((16, 16, 16))
    hu = (level + np.where((x + y + z) % 2, 10, -10)).astype(np.int16)
    for value in mean_frequencies(hu, 10.0).values():
        assert value == pytest.approx(0.5**0.5) if read else np.isnan(value)  # of a chessboard: 0.5 along both sides


@pytest.mark.parametrize(("count", "read"), [(49, False), (50, True)])
def test_fifty_lines_are_enough_for_a_width(count: int, read: bool) -> None:
    """Lines along Z that cross a step between lung and tissue, among lines without one."""
    hu = np.full((10, 10, 16), 50, np.int16)
    hu.reshape(100, 16)[:count, :8] = -850
    found = widths(hu)["lung border"][1]
    assert (found == pytest.approx(1.0)) if read else np.isnan(found)


@pytest.mark.parametrize(("depth", "read"), [(7, False), (8, True)])
def test_a_border_needs_four_voxels_on_each_side(depth: int, read: bool) -> None:
    hu = np.full((10, 10, depth), -850, np.int16)
    hu[:, :, 4:] = 50
    found = widths(hu)["lung border"][1]
    assert (found == pytest.approx(1.0)) if read else np.isnan(found)


@pytest.mark.parametrize("sigma", [1.0, 1.3])
def test_a_border_blurred_by_a_gaussian_is_two_and_a_half_sigma_wide(sigma: float) -> None:
    hu = np.full((60, 40, 40), -850.0)
    hu[30:] = 50
    wide = np.rint(gaussian_filter1d(hu, sigma, axis=0)).astype(np.int16)
    flat, along = widths(wide)["lung border"]
    assert flat == pytest.approx((2 * np.pi) ** 0.5 * sigma, rel=0.06) and np.isnan(along)
    assert widths(np.rint(hu).astype(np.int16))["lung border"][0] == pytest.approx(1)
    turned = widths(np.ascontiguousarray(np.moveaxis(wide, 0, 2)))["lung border"]
    assert turned[1] == pytest.approx(flat) and np.isnan(turned[0])


def test_a_border_to_air_is_of_the_body() -> None:
    hu = np.full((60, 40, 40), -1000, np.int16)
    hu[30:] = -100
    found = widths(hu)
    assert found["body border"][0] == 1 and np.isnan(found["lung border"][0])


def test_padding_changes_nothing() -> None:
    padded = np.pad(slabs(), ((7, 4), (2, 9), (5, 3)), constant_values=-1000)
    assert describe(padded) == pytest.approx(describe(slabs()), nan_ok=True)


def test_what_a_volume_lacks_is_nan_and_its_share_is_0() -> None:
    rng = np.random.default_rng(3)
    found = named(np.rint(40 + 8 * rng.standard_normal((48, 48, 48))).astype(np.int16))
    assert found["tissue_hu", "soft tissue"] == pytest.approx(40, abs=1)
    for name in ("air", "lung", "fat", "contrast", "bone"):
        assert np.isnan(found["tissue_hu", name])
    assert found["tissue_share", "bone"] == found["tissue_share", "lung"] == 0
    assert np.isnan(found["tissue_edge", "lung border, in-plane"])


def test_values_clipped_at_the_window_are_measured() -> None:
    found = named(slabs(noise=15).clip(-1000, 250))
    assert found["tissue_hu", "contrast"] == pytest.approx(250, abs=0.2) and found["tissue_noise", "contrast"] == 0
    assert found["tissue_noise", "air"] < 15


@pytest.mark.parametrize("shape", [(2, 2, 2), (32, 32, 16), (1, 40, 40)])
def test_small_grids_and_flat_volumes_give_numbers_or_nan(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(4)
    for hu in (np.full(shape, -1000), np.full(shape, 40), rng.integers(-1000, 1000, shape)):
        values = describe(hu.astype(np.int16))
        assert len(values) == len(OF_CLASSES) and not np.isinf(values).any()


def test_regions_are_measured_in_the_blocks_that_lie_wholly_in_one_label() -> None:
    hu, names = slabs(), {1: "liver", 2: "spleen"}
    labels = np.zeros(hu.shape, np.uint8)
    labels[54:71, 3:40, 3:40] = 1  # soft tissue, one voxel short of contrast
    regions = ("liver", "spleen", "heart")
    values = describe(hu, LabelMap(labels, np.eye(4), names), regions)
    found = dict(zip([(one.quantity, one.region) for one in descriptors(regions)], values, strict=True))
    assert found["tissue_hu", "liver"] == pytest.approx(50, abs=1)
    assert found["tissue_noise", "liver"] == pytest.approx(9, abs=0.6)
    assert np.isnan(found["tissue_hu", "spleen"]) and np.isnan(found["tissue_spread", "heart"])
    padding = ((4, 4), (4, 4), (4, 4))
    padded = LabelMap(np.pad(labels, padding), np.eye(4), names)
    assert describe(np.pad(hu, padding, constant_values=-1000), padded, regions) == pytest.approx(values, nan_ok=True)


@pytest.mark.parametrize(("blocks", "known"), [(19, False), (20, True)])
def test_a_level_and_a_spread_need_twenty_blocks(blocks: int, known: bool) -> None:
    """Of evenly spread values the median is the middle, and the spread half of the range over 1.349."""
    means = np.linspace(0, 100, blocks, dtype=np.float32)
    assert _level(means) == pytest.approx(50 if known else np.nan, nan_ok=True)
    assert _spread(means) == pytest.approx(50 / 1.349 if known else np.nan, rel=1e-3, nan_ok=True)
