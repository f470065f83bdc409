"""The exact rank-sum test, against an enumeration of all divisions and against SciPy without ties."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, rankdata

from medlord_bench.errors import UserError
from medlord_bench.stats.rank_sum import separation


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


def test_it_equals_scipy_without_ties_and_is_fast_for_many() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(0.8, 1, 12), rng.normal(0, 1, 20)
    expected = mannwhitneyu(x, y, method="exact")
    found = separation(x, y)
    assert found.p == pytest.approx(expected.pvalue) and found.auc == pytest.approx(expected.statistic / 240)
    assert separation(np.arange(50), np.arange(50, 300)).p < 1e-40


def test_equal_numbers_say_nothing_and_bad_ones_are_refused() -> None:
    assert separation([1, 1], [1, 1, 1]).p == 1 and separation([1], [1]).auc == 0.5
    for x in ([], [np.nan]):
        with pytest.raises(UserError, match="expected finite ones"):
            separation(x, [1.0])
