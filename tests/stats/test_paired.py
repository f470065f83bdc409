"""Paired tests against scipy, statsmodels and R's printed examples."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from medlord_bench import stats
from medlord_bench.errors import UserError

# Hollander & Wolfe 1999, example 3.1: Hamilton depression scores before and after a tranquilliser.
BEFORE = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
AFTER = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])


def test_wilcoxon_of_the_textbooks_example() -> None:
    found = stats.wilcoxon_paired(AFTER - BEFORE)
    # R: wilcox.test(after, before, paired = TRUE, conf.int = TRUE): V = 5, p = 0.03906, estimate -0.46, [-0.786, -0.010]
    assert found.p == pytest.approx(0.03906, abs=5e-6)
    assert found.estimate == pytest.approx(-0.46)
    assert (found.low, found.high) == pytest.approx((-0.786, -0.010))
    assert (found.n, found.zeros) == (9, 0)


def test_interval_leaves_out_zero_exactly_where_the_test_rejects() -> None:
    rejected = []
    for seed in range(200):
        differences = np.random.default_rng(seed).standard_normal(12) + 0.6
        found = stats.wilcoxon_paired(differences)
        assert found.low is not None
        assert found.high is not None
        rejected.append(found.p <= 0.05)
        assert rejected[-1] == (found.low > 0 or found.high < 0)
    assert 20 < sum(rejected) < 180


@pytest.mark.parametrize("n", [6, 13, 220])
def test_interval_covers_the_centre(n: int) -> None:
    inside = []
    for seed in range(300):
        found = stats.wilcoxon_paired(np.random.default_rng(seed).standard_t(3, n) + 2.0)
        assert found.low is not None
        assert found.high is not None
        inside.append(found.low <= 2.0 <= found.high)
    assert np.mean(inside) > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 300)


def test_order_statistic_is_that_of_all_signs() -> None:
    from medlord_bench.stats.paired import _signed_rank_quantile

    for n in (5, 6, 9):
        sums = [np.dot(signs, range(1, n + 1)) for signs in product((0, 1), repeat=n)]
        ranks = [r for r in range(n * (n + 1) // 2) if np.mean(np.array(sums) < r) <= 0.025]
        assert _signed_rank_quantile(n, 0.025) == max(ranks)
    assert _signed_rank_quantile(201, 0.025) == pytest.approx(_signed_rank_quantile(200, 0.025), rel=0.015)


def test_five_pairs_are_too_few_for_an_interval_and_no_difference_has_p_one() -> None:
    assert stats.wilcoxon_paired([1.0, 2.0, 3.0, 4.0, 5.0]).low is None
    same = stats.wilcoxon_paired(np.zeros(8))
    assert (same.p, same.estimate, same.zeros) == (1.0, 0.0, 8)


def test_an_infinite_difference_counts_as_the_largest_and_poisons_nothing() -> None:
    values = np.array([0.1, 0.2, -0.3, 0.4, 0.5, 0.6, 0.7, 5.0])
    infinite = np.where(values == 5.0, np.inf, values)
    found, finite = stats.wilcoxon_paired(infinite), stats.wilcoxon_paired(values)
    assert (found.p, found.estimate, found.low) == (finite.p, finite.estimate, finite.low)
    both = stats.wilcoxon_paired([-np.inf, np.inf, 0.1, 0.2, -0.1, 0.3, -0.2])
    assert np.isfinite([both.estimate, both.p]).all()


def test_holm_is_the_step_down_of_its_definition_in_the_order_given() -> None:
    ps = [0.04, 0.01, 0.03, 0.005]
    # Sorted 0.005 0.01 0.03 0.04, times 4 3 2 1, made non-decreasing: 0.02 0.03 0.06 0.06.
    np.testing.assert_allclose(stats.holm(ps), [0.06, 0.03, 0.06, 0.02])
    assert len(stats.holm([])) == 0
    from statsmodels.stats.multitest import multipletests

    many = np.random.default_rng(0).uniform(0, 1, 20) ** 3
    np.testing.assert_allclose(stats.holm([*many, *many[:5]]), multipletests([*many, *many[:5]], method="holm")[1])
    with pytest.raises(UserError, match="from 0 to 1"):
        stats.holm([0.5, np.nan])


def test_tost_is_two_one_sided_signed_rank_tests_and_needs_a_wide_margin_or_small_differences() -> None:
    differences = np.random.default_rng(0).normal(0.01, 0.03, 16)
    expected = max(
        scipy.stats.wilcoxon(differences + 0.05, alternative="greater").pvalue,
        scipy.stats.wilcoxon(differences - 0.05, alternative="less").pvalue,
    )
    found = stats.tost(differences, 0.05)
    assert found.p == pytest.approx(expected)
    assert found.p < 0.05
    assert stats.tost(differences, 0.01).p > 0.05
    assert stats.tost(differences + 1, 0.05).p > 0.99


def test_equivalence_holds_where_the_90_percent_interval_lies_inside_the_margin() -> None:
    agree = []
    for seed in range(200):
        found = stats.tost(np.random.default_rng(seed).normal(0.0, 1.0, 14), 0.5)
        assert found.low is not None
        assert found.high is not None
        agree.append((found.p <= 0.05) == (found.low > -0.5 and found.high < 0.5))
    assert np.mean(agree) > 0.99


def test_n_needed_has_the_power_asked_for_and_one_fewer_has_not() -> None:
    from statsmodels.stats.power import TTestPower

    # A difference of 0.5 standard deviations: 34 pairs (G*Power, paired t-test, two-sided, 5 %, 80 %).
    assert stats.n_needed(0.5, 1 / np.sqrt(20), 20) == 34
    assert stats.n_needed(-0.5, 1 / np.sqrt(20), 20) == 34
    needed = stats.n_needed(0.2, 0.3, 10, power=0.9)
    assert needed is not None
    effect = 0.2 / (0.3 * np.sqrt(10))
    assert TTestPower().power(effect, needed, 0.05) >= 0.9 > TTestPower().power(effect, needed - 1, 0.05)
    assert stats.n_needed(0.0, 1.0, 10) is None
    assert (stats.n_needed(1e-6, 1.0, 10) or 0) > 10**12


def test_the_detectable_difference_undoes_the_number_needed() -> None:
    from statsmodels.stats.power import TTestPower

    for n in (2, 3, 6, 12, 120):
        found = stats.detectable_difference(0.3, n)
        effect = np.squeeze(TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8))
        assert found / (0.3 * np.sqrt(n)) == pytest.approx(float(effect), rel=1e-4)
        assert found == stats.detectable_difference(0.3, n)
    for n in (3, 6, 12, 120):
        assert stats.n_needed(stats.detectable_difference(0.3, n) * 1.001, 0.3, n) == n
    # For a known error: (1.960 + 0.842) errors, the textbooks' closed form.
    assert stats.detectable_difference(0.3, 100_000) == pytest.approx(0.3 * (1.959964 + 0.841621), rel=1e-4)


Groups = list[NDArray[np.float64]]


def volumes(n: int, seed: int, shift: float = 0.0, d: int = 4) -> Groups:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(d) + rng.standard_normal((3, d)) + shift for _ in range(n)]


def test_paired_difference_of_means_is_welchs_test_without_the_shared_set() -> None:
    """With a statistic that is linear in the real set the real units cancel, and a t-test of the samples is left."""
    rng = np.random.default_rng(1)
    a, b, real = rng.normal(0, 1, 12), rng.normal(1, 2, 15), rng.normal(0, 5, 9)

    def left_out(x: NDArray[np.float64]) -> stats.FrechetJackknife:
        without_x = np.array([np.delete(x, i).mean() - real.mean() for i in range(len(x))])
        without_y = np.array([x.mean() - np.delete(real, i).mean() for i in range(len(real))])
        return stats.FrechetJackknife(x.mean() - real.mean(), without_x, without_y)

    found, welch = stats.paired_jackknife(left_out(a), left_out(b)), scipy.stats.ttest_ind(a, b, equal_var=False)
    interval = welch.confidence_interval(0.95)
    assert found.p == pytest.approx(welch.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.debiased == pytest.approx(found.value, rel=1e-9)


def test_pairing_on_the_real_set_narrows_the_interval_of_a_difference() -> None:
    real, near, far = volumes(20, 0), volumes(20, 1, shift=2.0), volumes(20, 2, shift=2.5)
    a, b = stats.frechet_jackknife(near, real), stats.frechet_jackknife(far, real)
    paired = stats.paired_jackknife(a, b)
    apart = stats.jackknife(a.value - b.value, a.without_x, -b.without_x, a.without_y, -b.without_y)
    assert paired.error < 0.9 * apart.error
    assert paired.value == pytest.approx(a.value - b.value)
    back = stats.paired_jackknife(b, a)
    assert (back.p, back.low) == pytest.approx((paired.p, -paired.high))


def test_squared_distances_are_tested_by_their_roots_and_the_interval_agrees() -> None:
    """Roots that are differences of means: Welch's p-value, and its interval times the sum of the roots."""
    rng = np.random.default_rng(3)
    a, b, real = rng.normal(5, 1, 12), rng.normal(6, 2, 15), rng.normal(0, 1, 9)

    def left_out(x: NDArray[np.float64]) -> stats.FrechetJackknife:
        without_x = np.array([np.delete(x, i).mean() - real.mean() for i in range(len(x))])
        without_y = np.array([x.mean() - np.delete(real, i).mean() for i in range(len(real))])
        return stats.FrechetJackknife((x.mean() - real.mean()) ** 2, without_x**2, without_y**2)

    found = stats.paired_jackknife(left_out(a), left_out(b), squared=True)
    welch = scipy.stats.ttest_ind(a, b, equal_var=False)
    interval, factor = welch.confidence_interval(0.95), a.mean() + b.mean() - 2 * real.mean()
    assert found.p == pytest.approx(welch.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low * factor, interval.high * factor), rel=1e-9)
    assert found.value == pytest.approx((a.mean() - real.mean()) ** 2 - (b.mean() - real.mean()) ** 2)
    assert stats.paired_jackknife(left_out(a), left_out(a), squared=True).p == 1.0


def test_a_generator_compared_with_itself_is_a_tie() -> None:
    a = stats.frechet_jackknife(volumes(8, 0), volumes(8, 1))
    assert stats.paired_jackknife(a, a).p == 1.0


def test_kernel_distances_are_paired_in_the_same_way() -> None:
    real, near, far = volumes(15, 0), volumes(15, 1), volumes(15, 2, shift=2.0)
    found = stats.paired_jackknife(*(stats.kernel_distance(samples, real, 0, 10) for samples in (near, far)))
    assert found.high < 0
    assert found.p < 0.01


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: stats.wilcoxon_paired([]), "none at all"),
        (lambda: stats.wilcoxon_paired([1.0, np.nan]), "NaN"),
        (lambda: stats.tost([1.0, 2.0], 0.0), "positive"),
        (lambda: stats.n_needed(1.0, 0.0, 10), "positive error"),
        (lambda: stats.detectable_difference(0.0, 10), "positive error"),
        (
            lambda: stats.paired_jackknife(
                stats.frechet_jackknife(volumes(4, 0), volumes(4, 1)),
                stats.frechet_jackknife(volumes(4, 0), volumes(5, 1)),
            ),
            "4 and 5 real units",
        ),
    ],
)
def test_bad_input_is_one_line_that_says_what_was_expected(call, expected: str) -> None:
    with pytest.raises(UserError, match=expected) as caught:
        call()
    assert "\n" not in str(caught.value)
