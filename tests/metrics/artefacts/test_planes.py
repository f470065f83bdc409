"""Jumps between planes: closed forms on noise, and what no seam is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from medlord_bench.metrics.artefacts.planes import Axis, _midmeans, along, body_of

MM = (1.5, 1.5, 1.5)


def noise(shape: tuple[int, int, int] = (48, 48, 48), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(40, 15, shape)


def axis_of(hu: np.ndarray, axis: int) -> Axis:
    volume = np.rint(hu).astype(np.int16)
    return along(volume, *body_of(volume, MM), axis)


@pytest.mark.parametrize("axis", range(3))
def test_a_seam_in_the_middle_is_of_its_axis(axis: int) -> None:
    hu = noise()
    np.moveaxis(hu, axis, 0)[24:] += 20
    found = [axis_of(hu, each) for each in range(3)]
    typical = axis_of(noise(), axis)
    assert found[axis].middle() > 5 * typical.middle()
    assert found[axis].largest() > 3 * typical.largest()
    assert np.argmax(found[axis].jumps) == 23 and found[axis].jumps[23] == pytest.approx(20, abs=3)
    assert all(found[other].middle() < 4 for other in range(3) if other != axis)


def test_tiles_are_seen_at_their_period() -> None:
    hu = noise((64, 64, 64))
    hu += np.random.default_rng(1).normal(0, 20, (4, 4, 4)).repeat(16, 0).repeat(16, 1).repeat(16, 2)
    found, clean = axis_of(hu, 0), axis_of(noise((64, 64, 64)), 0)
    assert found.every(16) > 3 * clean.every(16) and np.isnan(found.every(64))


def test_banding_is_the_spread_of_steps_between_slices() -> None:
    offsets = np.random.default_rng(2).normal(0, 10, 192)
    found = axis_of(noise((48, 48, 192)) + offsets, 2)
    steps = np.diff(offsets)
    trend = [np.median(np.delete(steps[k - 2 : k + 3], 2)) for k in range(2, len(steps) - 2)]
    expected = 1.4826 * np.median(np.abs(steps[2:-2] - trend))
    assert found.banding() == pytest.approx(expected, rel=0.1)
    assert axis_of(noise((48, 48, 192)), 2).banding() < 2


def test_a_ramp_and_a_wide_edge_are_no_seam() -> None:
    hu = noise() + np.arange(48)[:, None, None] * 5.0
    assert axis_of(hu, 0).largest() < 3
    edge = noise() + 300 / (1 + np.exp(-(np.arange(48) - 30.5) / 1.5))[:, None, None]
    assert axis_of(edge, 0).largest() < 8


def test_slices_in_identical_pairs_are_uneven() -> None:
    hu = noise()[:, :, ::2].repeat(2, axis=2)
    assert axis_of(hu, 2).uneven == pytest.approx(1, abs=0.01)
    assert axis_of(hu, 0).uneven < 0.1


@pytest.mark.parametrize("level", [-1000, 40])
def test_a_constant_volume(level: int) -> None:
    found = axis_of(np.full((16, 16, 16), level), 0)
    known = level == 40
    assert found.known == known and np.isnan(found.middle()) != known and np.isnan(found.banding()) != known


def test_few_planes_give_nothing() -> None:
    found = axis_of(noise((32, 32, 8)), 2)
    assert np.isnan(found.middle()) and np.isnan(found.every(8))


def test_air_around_the_body_is_left_out() -> None:
    hu = np.full((64, 48, 48), -1000.0)
    hu[16:48] = noise((32, 48, 48))
    assert np.isnan(axis_of(hu, 0).jumps[:14]).all() and axis_of(hu, 0).largest() < 6


def test_a_jump_where_nothing_else_differs_is_over_a_twentieth_of_a_hu() -> None:
    jumps = np.zeros(17)
    jumps[8] = 2.0
    found = Axis(jumps, np.zeros(17), 0.0, 0.0)
    assert found.typical == 0.05
    assert found.largest() == found.middle() == pytest.approx(40.0)
    assert found.every(8) == pytest.approx(np.mean([0.0, 2.0, 0.0]) / 0.05)  # planes 0, 8 and 16


@pytest.mark.parametrize(("tissue", "known"), [(63, False), (64, True)])
def test_a_block_counts_where_a_quarter_of_it_is_tissue(tissue: int, known: bool) -> None:
    """The mean of the middle half of its values, as SciPy's trimmed mean has it."""
    values = np.full(256, np.nan, np.float32)
    values[:tissue] = np.random.default_rng(3).normal(0, 10, tissue) ** 3
    found, count = _midmeans(np.random.default_rng(4).permutation(values).reshape(1, 16, 16))
    assert count.tolist() == [[tissue if known else 0]]
    expected = scipy_stats.trim_mean(values[:tissue], 0.25) if known else np.nan
    assert found[0, 0] == pytest.approx(expected, rel=1e-5, nan_ok=True)
