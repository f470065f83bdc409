"""Choices between two volumes: independent ones, ones that share volumes, coverage and false alarms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint

from medlord_bench import stats
from medlord_bench.errors import UserError
from medlord_bench.stats.choices import shared

N = 20


def ids(n: int) -> np.ndarray:
    return np.stack([np.arange(n), 1000 + np.arange(n)], 1)


def study(rng: np.random.Generator, effects: tuple[float, ...], readers: int, spread: float) -> list[np.ndarray]:
    """Every reader chooses between real and each model; a volume looks alike to all of them."""
    looks = rng.normal(0, spread, (len(effects), N))
    rows = []
    for _ in range(readers):
        for other in range(1, len(effects)):
            a, b = rng.permutation(N), rng.permutation(N)
            apart = effects[0] + looks[0, a] - effects[other] - looks[other, b]
            right = rng.random(N) < 1 / (1 + np.exp(-apart))
            rows += [(0, other, i, other * N + j, won) for i, j, won in zip(a, b, right, strict=True)]
    first, second, i, j, won = (np.array(column) for column in zip(*rows, strict=True))
    chosen, not_chosen = np.where(won, first, second), np.where(won, second, first)
    volumes = np.where(won[:, None], np.stack([i, j], 1), np.stack([j, i], 1))
    return [chosen, not_chosen, volumes, won, np.stack([i, j], 1)]


@pytest.mark.parametrize(("right", "n"), [(8, 10), (6, 6), (5, 5), (3, 16), (10, 20), (0, 7)])
def test_independent_choices_are_the_exact_binomial_test(right: int, n: int) -> None:
    found = stats.accuracy([1] * right + [0] * (n - right), ids(n))
    assert found.size == pytest.approx(n)
    assert found.p == pytest.approx(binomtest(right, n).pvalue)
    assert (found.low, found.high) == pytest.approx(proportion_confint(right, n, method="beta"))


def test_all_right_is_as_many_choices_as_volumes_and_has_the_smallest_p() -> None:
    perfect = stats.accuracy([1] * 30, np.tile(ids(10), (3, 1)))  # by three readers: ten volumes, not thirty
    assert perfect.p == pytest.approx(binomtest(10, 10).pvalue)
    assert (perfect.low, perfect.high) == pytest.approx(proportion_confint(10, 10, method="beta"))
    p = [stats.accuracy([1] * k + [0] * (30 - k), np.tile(ids(10), (3, 1))).p for k in range(30, 14, -1)]
    assert p[0] == pytest.approx(min(p))
    two = [stats.accuracy([1] * k + [0] * (16 - k), np.tile(ids(8), (2, 1))).p for k in range(16, 7, -1)]
    np.testing.assert_array_less(np.array(two[:-1]), np.array(two[1:]) + 1e-9)


def test_p_is_below_five_percent_where_the_interval_leaves_out_a_half() -> None:
    rng = np.random.default_rng(0)
    apart = 0
    for _ in range(300):
        volumes = np.stack([rng.integers(0, 8, 24), 100 + rng.integers(0, 8, 24)], 1)
        found = stats.accuracy(rng.random(24) < rng.uniform(0.1, 0.9), volumes)
        outside = not found.low <= 0.5 <= found.high
        assert (found.p < 0.05) == outside
        apart += outside
    assert 30 < apart < 270
    assert stats.accuracy([1] * 9, np.stack([np.zeros(9, int), 1 + np.arange(9)], 1)).p == 1  # one real volume


def test_a_rate_is_wilson_s_at_the_number_of_volumes_where_readers_agree() -> None:
    found = stats.rate([1] * 8 + [0] * 2, np.arange(10))
    assert (found.low, found.high) == pytest.approx(proportion_confint(8, 10, method="wilson"))
    thrice = stats.rate(np.tile([1] * 8 + [0] * 2, 3), np.tile(np.arange(10), 3))
    assert (thrice.low, thrice.high, thrice.size) == pytest.approx((found.low, found.high, 10))


def test_the_sum_over_shared_volumes_equals_the_sum_over_all_pairs_of_choices() -> None:
    rng = np.random.default_rng(0)
    scores, volumes = rng.normal(size=(40, 3)), np.stack([rng.integers(0, 6, 40), rng.integers(6, 12, 40)], 1)
    expected = sum(
        np.outer(scores[i], scores[j]) for i in range(40) for j in range(40) if set(volumes[i]) & set(volumes[j])
    )
    np.testing.assert_allclose(shared(scores, volumes), expected)


def test_the_same_choice_of_many_readers_is_no_new_evidence() -> None:
    right = np.array([1] * 14 + [0] * 6)
    once, often = stats.accuracy(right, ids(N)), stats.accuracy(np.tile(right, 5), np.tile(ids(N), (5, 1)))
    assert once.size == pytest.approx(20) and 0.85 * 20 < often.size < 20  # a variance of 20 volumes, not of 100
    assert often.low < once.low and often.high > once.high and often.p >= once.p


def test_false_alarms_and_coverage_where_readers_share_volumes() -> None:
    alarms, inside, covered = [], [], []
    for seed in range(250):
        chosen, other, volumes, won, sides = study(np.random.default_rng(seed), (0.0, 0.0, 0.0), 3, 0.8)
        own = sides[:, 1] < 2 * N
        alarms.append(stats.accuracy(won[own], sides[own]).p <= 0.05)
        found = stats.accuracy(won[own], sides[own])
        covered.append(found.low <= 0.5 <= found.high)
        found_strengths = stats.strengths(chosen, other, volumes, 3)
        inside += ((found_strengths.low <= 0) & (found_strengths.high >= 0))[1:].tolist()
    assert np.mean(alarms) <= 0.05
    assert np.mean(covered) >= 0.95
    assert 0.93 <= np.mean(inside) <= 0.975


def test_strengths_are_those_of_the_counts_and_a_separated_sample_is_named() -> None:
    rng = np.random.default_rng(3)
    chosen, other, volumes, _, _ = study(rng, (0.0, -1.0), 2, 0.5)
    wins = np.zeros((2, 2))
    np.add.at(wins, (chosen, other), 1)
    found, plain = stats.strengths(chosen, other, volumes, 2), stats.bradley_terry(wins)
    np.testing.assert_allclose(found.value, plain.value)
    assert found.error[1] >= plain.error[1] and found.low[0] == found.high[0] == 0
    with pytest.raises(UserError, match="separated"):
        stats.strengths([0, 0], [1, 1], [[0, 5], [1, 6]], 2)


def test_no_choices_are_refused() -> None:
    with pytest.raises(UserError, match="expected 0 or 1"):
        stats.accuracy([], np.zeros((0, 2)))
