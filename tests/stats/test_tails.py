"""Heavy tails: when one volume decides an interval, and that normal features rarely look so."""

from __future__ import annotations

import numpy as np
import pytest

from medlord_bench import stats
from medlord_bench.checks.calibration.simulated import Sets


def mean(x: np.ndarray) -> tuple[float, np.ndarray]:
    return float(x.mean()), (x.sum() - x) / (len(x) - 1)


def test_share_is_that_of_a_squared_deviation_in_the_variance_of_two_means() -> None:
    x, y = np.array([0.0, 1.0, 2.0, 9.0]), np.array([1.0, 1.0, 2.0, 3.0, 3.0])
    (a, without_x), (b, without_y) = mean(x), mean(y)
    found = stats.tails(a - b, without_x - b, a - without_y)
    parts = [((v - v.mean()) ** 2) / (len(v) * (len(v) - 1)) for v in (x, y)]
    assert found.share == pytest.approx(parts[0][3] / (parts[0].sum() + parts[1].sum()))
    assert found.place == (0, 3)
    assert found.without == pytest.approx(1.0 - b)


def test_one_volume_that_decides_is_named_with_the_value_without_it_and_a_wider_interval() -> None:
    x, y = np.r_[np.zeros(11), 100.0] + np.arange(12), np.arange(12.0)
    (a, without_x), (b, without_y) = mean(x), mean(y)
    parts = (without_x - b, a - without_y)
    found, plain = stats.tails(a - b, *parts), stats.jackknife(a - b, *parts)
    assert found.heavy
    assert found.wide.low < plain.low and found.wide.high > plain.high
    text = found.caution([f"s{i}" for i in range(12)], [f"r{i}" for i in range(12)])
    assert "s11" in text and f"{found.without:.4g} without it" in text and f"{found.share:.0%}" in text
    assert stats.tails(0.0, without_y - b).caution(list("abcdefghijkl")) == ""


def test_a_constant_statistic_has_no_tails() -> None:
    found = stats.tails(2.0, np.full(8, 2.0), np.full(8, 2.0), squared=True)
    assert (found.share, found.heavy) == (0.0, False)


@pytest.mark.parametrize("n", [8, 24])
def test_false_alarms_on_squares_of_normal_numbers_are_five_percent_and_on_normal_numbers_fewer(n: int) -> None:
    rng = np.random.default_rng(n)
    rates = []
    for power in (2, 1):
        sets = rng.standard_normal((300, 2, n)) ** power
        alarms = 0
        for x, y in sets:
            (a, without_x), (b, without_y) = mean(x), mean(y)
            alarms += stats.tails(a - b, without_x - b, a - without_y).heavy
        rates.append(alarms / len(sets))
    assert 0.01 <= rates[0] <= 0.1  # 300 sets at 5 %: outside once in some thousand seeds
    assert rates[1] <= 0.01


def test_false_alarms_on_distances_of_normal_features_are_at_most_five_percent() -> None:
    """Few directions and correlated slices are the worst of the settings tried."""
    sets, alarms = Sets(8, 8, 3, 8, 0.8, scale=2.0), 0
    for i in range(150):
        found = stats.frechet_jackknife(*sets.draw(i))
        alarms += stats.tails(found.value, found.without_x, found.without_y, squared=True).heavy
    assert alarms <= 15  # 5 % is 7.5
