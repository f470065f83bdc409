"""The permutation test over cases and Cliff's delta: exact small cases, an independent implementation, false alarms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from medlord_bench import stats
from medlord_bench.errors import UserError


def test_small_samples_are_exact() -> None:
    found = stats.dominance([1, 2, 3], [4, 5, 6], 0)
    assert found.exact and found.delta == -1 and found.p == pytest.approx(2 / 20)
    x, y = [1.2, 3.4, 5.1, 0.3, 2.2], [2.5, 6.0, 7.1, 3.3, 9.0, 4.4]
    expected = mannwhitneyu(x, y, method="exact")
    found = stats.dominance(x, y, 0)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.delta == pytest.approx(2 * expected.statistic / 30 - 1)


def test_larger_samples_are_drawn_and_agree() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, 30), rng.normal(0.5, 1, 30)
    found = stats.dominance(x, y, 0)
    assert not found.exact and found.p == pytest.approx(mannwhitneyu(x, y).pvalue, abs=0.02)
    assert found.low < found.delta < found.high and found == stats.dominance(x, y, 0)


def test_equal_values_are_no_difference_and_empty_sets_are_refused() -> None:
    assert stats.dominance([3, 3, 3], [3, 3], 0).p == 1
    with pytest.raises(UserError, match="at least one case"):
        stats.dominance([], [1], 0)


def test_false_alarms_are_at_most_five_in_a_hundred() -> None:
    rng = np.random.default_rng(1)
    alarms = [stats.dominance(*np.round(rng.normal(3, 1, (2, 6))), seed, 10).p <= 0.05 for seed in range(400)]
    assert np.mean(alarms) <= 0.075
