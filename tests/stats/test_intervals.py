"""Jackknife, median and Wilson intervals against closed forms, scipy, numpy and tables."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from medlord_bench import stats
from medlord_bench.errors import UserError


def test_jackknife_takes_the_known_bias_off_a_squared_mean() -> None:
    x = np.random.default_rng(0).normal(1.0, 2.0, 25)
    without = [np.delete(x, i).mean() ** 2 for i in range(len(x))]
    found = stats.jackknife(x.mean() ** 2, without)
    assert found.debiased == pytest.approx(x.mean() ** 2 - x.var(ddof=1) / len(x), rel=1e-10)  # E[mean^2] bias


def test_jackknife_of_a_difference_of_means_is_welchs_interval() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, 12), rng.normal(1, 3, 20)
    difference = x.mean() - y.mean()
    without_x = [np.delete(x, i).mean() - y.mean() for i in range(len(x))]
    without_y = [x.mean() - np.delete(y, i).mean() for i in range(len(y))]
    found = stats.jackknife(difference, without_x, without_y)
    welch = scipy.stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((welch.low, welch.high), rel=1e-9)


def test_interval_of_a_squared_statistic_is_that_of_its_fourth_root() -> None:
    x = np.random.default_rng(2).normal(5.0, 1.0, 20)
    roots = np.array([np.delete(x, i).mean() for i in range(20)])
    plain, squared = stats.jackknife(x.mean(), roots), stats.jackknife(x.mean() ** 4, roots**4, squared=True)
    assert (squared.low, squared.high) == pytest.approx((plain.low**4, plain.high**4), rel=1e-9)
    unsquared = stats.jackknife(x.mean() ** 4, roots**4)
    assert (squared.debiased, squared.error) == (unsquared.debiased, unsquared.error)


def test_heavy_degrees_of_freedom_are_those_of_a_variance_of_this_kurtosis() -> None:
    """Of many variances of Laplace numbers (kurtosis 6): 2 / the squared coefficient of variation."""
    rng = np.random.default_rng(0)
    variances = rng.laplace(size=(20_000, 400)).var(1, ddof=1)
    expected = 2 * variances.mean() ** 2 / variances.var()
    x = rng.laplace(size=(300, 400))
    found = [stats.jackknife(r.mean(), (r.sum() - r) / 399, heavy=True).freedom for r in x]
    assert np.median(found) == pytest.approx(expected, rel=0.15)
    even = np.tile([0.0, 1.0], 10)
    without = (even.sum() - even) / 19
    assert stats.jackknife(0.5, without, heavy=True) == stats.jackknife(0.5, without), "light tails change nothing"


@pytest.mark.parametrize("value", [0.0, 1e-9, 1.0])
def test_interval_of_a_squared_statistic_holds_the_statistic_and_nothing_negative(value: float) -> None:
    without = value + np.linspace(0, 1, 9) ** 4
    found = stats.jackknife(value, without, without[:4], squared=True)
    assert 0 <= found.low <= value <= found.high
    same = stats.jackknife(value, np.full(5, value), squared=True)
    assert (same.low, same.high, same.error) == (value, value, 0.0)


def test_median_interval_is_that_of_the_tables() -> None:
    # Conover, Practical Nonparametric Statistics: n = 16 takes the 4th and 13th, n = 6 the ends, n = 5 has none.
    assert (stats.median_interval(range(1, 17)).low, stats.median_interval(range(1, 17)).high) == (4, 13)
    assert (stats.median_interval(range(1, 7)).low, stats.median_interval(range(1, 7)).high) == (1, 6)
    assert stats.median_interval(range(1, 6)).low is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_median_and_quartiles_are_numpys_and_the_interval_holds_the_median(values: list[float]) -> None:
    found = stats.median_interval(values)
    expected = np.quantile(values, [0.5, 0.25, 0.75])
    np.testing.assert_allclose(
        [found.value, found.lower_quartile, found.upper_quartile], expected, rtol=1e-9, atol=1e-9
    )
    if found.low is not None and found.high is not None:
        assert found.low <= found.value <= found.high


def test_an_infinite_value_takes_its_rank_and_poisons_nothing() -> None:
    found = stats.median_interval([-np.inf, 1, 2, 3, 4, 5, np.inf])
    assert (found.value, found.low, found.high) == (3, -np.inf, np.inf)
    assert found.lower_quartile == 1.5


def test_wilson_interval_of_a_textbook_case() -> None:
    # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662.
    assert stats.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert stats.wilson(0, 10)[0] == 0


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: stats.jackknife(1.0, [1.0]), "at least 2"),
        (lambda: stats.jackknife(1.0, [1.0, -0.1], squared=True), "negative"),
        (lambda: stats.median_interval([]), "none at all"),
        (lambda: stats.median_interval([1.0, np.nan]), "NaN"),
        (lambda: stats.wilson(3, 2), "successes"),
    ],
)
def test_bad_input_is_one_line_that_says_what_was_expected(call, expected: str) -> None:
    with pytest.raises(UserError, match=expected) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_more_often_is_the_hypergeometric_tail() -> None:
    """Fisher's exact test in closed form."""
    from math import comb

    def tail(k: int, n: int, j: int, m: int) -> float:
        total = comb(n + m, k + j)
        return sum(comb(n, i) * comb(m, k + j - i) for i in range(k, min(n, k + j) + 1)) / total

    for case in ((8, 8, 0, 24), (1, 3, 0, 6), (28, 48, 28, 32), (0, 5, 3, 7), (5, 16, 2, 24)):
        assert stats.more_often(*case) == pytest.approx(tail(*case))
