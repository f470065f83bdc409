"""Energy distance, permutation tests and one-dimensional comparisons against scipy and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from medlord_bench import stats
from medlord_bench.errors import UserError


def rows(n: int, seed: int, shift: float = 0.0, d: int = 3) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal((n, d)) + shift


def mean_distance(a: NDArray[np.float64], b: NDArray[np.float64], pairs: int) -> float:
    return float(sum(np.linalg.norm(p - q) for p in a for q in b) / pairs)


def test_energy_distance_is_that_of_loops_over_pairs() -> None:
    x, y = rows(7, 0), rows(9, 1, shift=0.7)
    expected = 2 * mean_distance(x, y, 63) - mean_distance(x, x, 42) - mean_distance(y, y, 72)
    found = stats.energy_distance(x, y, 0, 10)
    assert found.value == pytest.approx(expected, rel=1e-12)
    without = stats.energy_distance(x[1:], y, 0, 10).value
    assert found.without_x[0] == pytest.approx(without, rel=1e-12)


def test_energy_distance_of_one_column_is_scipys_without_its_bias() -> None:
    x, y = rows(30, 2, d=1), rows(20, 3, shift=0.5, d=1)
    # scipy: root of the V-statistic, whose pairs of a unit with itself add zeros to the mean distances within.
    within_x, within_y = mean_distance(x, x, 30 * 29), mean_distance(y, y, 20 * 19)
    v_statistic = stats.energy_distance(x, y, 0, 10).value + within_x / 30 + within_y / 20
    assert v_statistic == pytest.approx(scipy.stats.energy_distance(x[:, 0], y[:, 0]) ** 2, rel=1e-12)


def test_energy_distance_sees_shift_and_spread_and_not_equal_distributions() -> None:
    assert stats.energy_distance(rows(40, 4), rows(40, 5, shift=1.0), 0).p < 0.01
    assert stats.energy_distance(rows(40, 6), 2.5 * rows(40, 7), 0).p < 0.01
    assert stats.energy_distance(rows(40, 8), rows(40, 9), 0).p > 0.05


def test_a_missing_region_is_refused_and_not_dropped() -> None:
    x = rows(5, 0)
    x[2, 1] = np.nan
    with pytest.raises(UserError, match="first set: features contain NaN"):
        stats.energy_distance(x, rows(5, 1), 0)
    with pytest.raises(UserError, match="5 and 2 units, expected at least 3"):
        stats.energy_distance(rows(5, 1), rows(2, 0), 0)


def test_wasserstein_of_a_shift_is_the_shift_and_ks_is_scipys() -> None:
    x = rows(50, 12, d=1)[:, 0]
    assert stats.wasserstein1(x, x + 0.3) == pytest.approx(0.3)
    found, reference = stats.ks(x, x + 0.3), scipy.stats.ks_2samp(x, x + 0.3)
    assert (found.value, found.p) == (reference.statistic, reference.pvalue)
    assert stats.ks(x, x + 10).value == 1


def test_variance_ratio_is_below_one_where_the_first_varies_less_and_none_where_the_second_does_not() -> None:
    x = rows(50, 13, d=1)[:, 0]
    assert stats.variance_ratio(0.5 * x, x) == pytest.approx(0.25)
    assert stats.variance_ratio(x[:3], [0.1] * 3) is None
    assert stats.variance_ratio([0.1] * 3, x) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda: stats.wasserstein1([], [1.0]),
        lambda: stats.ks([1.0], [np.nan]),
        lambda: stats.variance_ratio([1.0], [1.0, 2.0]),
        lambda: stats.wasserstein1([[1.0]], [1.0]),
    ],
)
def test_bad_input_is_refused_in_one_line(call) -> None:
    with pytest.raises(UserError, match="expected") as caught:
        call()
    assert "\n" not in str(caught.value)
