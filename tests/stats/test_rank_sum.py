"""The exact rank-sum test and Cliff's delta, against an enumeration of all divisions and against SciPy without ties."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, rankdata

from medlord_bench import stats
from medlord_bench.errors import UserError
from medlord_bench.stats import separation


@pytest.mark.parametrize("seed", range(5))
def test_it_equals_an_enumeration_with_ties(seed: int) -> None:
    numbers = np.random.default_rng(seed).integers(0, 4, 9).astype(float)
    ranks = rankdata(numbers)
    sums = np.array([ranks[list(chosen)].sum() for chosen in combinations(range(9), 4)])
    far = np.abs(sums - sums.mean()) >= abs(ranks[:4].sum() - sums.mean()) - 1e-9
    found = separation(numbers[:4], numbers[4:])
    assert found.p == pytest.approx(far.mean())
    above = np.sign(np.subtract.outer(numbers[:4], numbers[4:])) / 2 + 0.5
    assert found.auc == pytest.approx(above.mean())


def test_it_equals_scipy_without_ties_and_counts_of_ways() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(0.8, 1, 12), rng.normal(0, 1, 20)
    expected = mannwhitneyu(x, y, method="exact")
    found = separation(x, y)
    assert found.p == pytest.approx(expected.pvalue) and found.auc == pytest.approx(expected.statistic / 240)
    swapped = separation(y, x)
    assert swapped.p == pytest.approx(found.p) and swapped.auc == pytest.approx(1 - found.auc)
    assert separation(np.arange(30), np.arange(30, 100)).p == pytest.approx(2 / comb(100, 30))


def test_many_numbers_are_near_the_exact_distribution() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(0.3, 1, 70), rng.normal(0, 1, 80)
    exact, many = separation(x, y).p, separation(np.append(x, x[0]), y).p
    assert many == pytest.approx(exact, rel=0.5) and 0 < exact < 1


def test_equal_numbers_say_nothing_and_bad_ones_are_refused() -> None:
    assert separation([1, 1], [1, 1, 1]).p == 1 and separation([1], [1]).auc == 0.5
    for x in ([], [np.nan]):
        with pytest.raises(UserError, match="expected finite ones"):
            separation(x, [1.0])


def test_dominance_of_small_samples_is_exact() -> None:
    found = stats.dominance([1, 2, 3], [4, 5, 6], 0)
    assert found.exact and found.delta == -1 and found.p == pytest.approx(2 / 20)
    x, y = [1.2, 3.4, 5.1, 0.3, 2.2], [2.5, 6.0, 7.1, 3.3, 9.0, 4.4]
    expected = mannwhitneyu(x, y, method="exact")
    found = stats.dominance(x, y, 0)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.delta == pytest.approx(2 * expected.statistic / 30 - 1)


def test_dominance_of_larger_samples_agrees() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, 30), rng.normal(0.5, 1, 30)
    found = stats.dominance(x, y, 0)
    assert found.exact and found.p == pytest.approx(mannwhitneyu(x, y, method="exact").pvalue)
    assert found.low < found.delta < found.high and found == stats.dominance(x, y, 0)


def test_equal_values_are_no_difference_and_empty_sets_are_refused() -> None:
    assert stats.dominance([3, 3, 3], [3, 3], 0).p == 1
    with pytest.raises(UserError, match="expected finite ones in both sets"):
        stats.dominance([], [1], 0)


def test_false_alarms_are_at_most_five_in_a_hundred() -> None:
    rng = np.random.default_rng(1)
    alarms = [stats.dominance(*np.round(rng.normal(3, 1, (2, 6))), seed, 10).p <= 0.05 for seed in range(400)]
    assert np.mean(alarms) <= 0.075
