"""The Hodges-Lehmann shift: by hand, its coverage with heavy tails, and bad input."""

from __future__ import annotations

import numpy as np
import pytest

from medlord_bench import stats
from medlord_bench.errors import UserError


def test_is_the_median_of_all_differences() -> None:
    found = stats.shift([1.0, 2.0, 10.0], [0.0, 1.0])
    assert found.value == np.median([1, 0, 2, 1, 10, 9])
    assert found.low is None and found.high is None


def test_the_interval_inverts_the_rank_sum_test() -> None:
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(3)
    x, y = rng.standard_normal(12) + 0.7, rng.standard_normal(15)
    found = stats.shift(x, y)
    assert found.low is not None and found.high is not None and found.low < found.value < found.high
    for shift in (found.low + 1e-6, found.high - 1e-6):
        assert mannwhitneyu(x - shift, y, method="exact").pvalue > 0.04
    for shift in (found.low - 0.3, found.high + 0.3):
        assert mannwhitneyu(x - shift, y, method="exact").pvalue < 0.05


def test_covers_the_shift_of_heavy_tails() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        found = stats.shift(rng.standard_t(1.5, 8) + 1, rng.standard_t(1.5, 16))
        assert found.low is not None and found.high is not None
        inside += found.low <= 1 <= found.high
    assert 0.92 <= inside / 400 <= 0.99


@pytest.mark.parametrize("values", [[], [np.nan, 1.0], [[1.0]]])
def test_values_that_are_not_numbers(values: list[float]) -> None:
    with pytest.raises(UserError, match="expected finite numbers"):
        stats.shift(values, [1.0, 2.0])
