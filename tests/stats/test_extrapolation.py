"""FID-infinity against the population's distance."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from medlord_bench import stats
from medlord_bench.errors import UserError

Groups = list[NDArray[np.float64]]


def volumes(n: int, seed: int, d: int = 4, shift: float = 0.0) -> Groups:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(d) + rng.standard_normal((3, d)) + shift for _ in range(n)]


def test_distance_at_infinity_is_that_of_the_population_where_the_plain_one_is_too_large() -> None:
    true = 4 * 0.5**2  # equal covariances: the squared shift alone
    found = [stats.frechet_infinity(volumes(40, r), volumes(40, 500 + r, shift=0.5), 0) for r in range(40)]
    values, plain = [one.value for one in found], [one.distances[0] for one in found]
    error = np.std(values) / np.sqrt(40)
    assert np.mean(values) == pytest.approx(true, abs=3 * error)
    assert np.mean(plain) > true + 3 * error


def test_the_first_point_is_the_distance_of_all_and_smaller_shares_lie_above() -> None:
    x, y = volumes(24, 0), volumes(30, 1)
    found = stats.frechet_infinity(x, y, 0)
    assert found.distances[0] == stats.frechet_distance(np.concatenate(x), np.concatenate(y))
    np.testing.assert_allclose(found.shares, [1, 2 / 3, 1 / 2])
    assert (np.diff(found.distances) > 0).all()
    assert found.value < found.distances[0]
    again = stats.frechet_infinity(x, y, 0)
    assert (again.value, again.bend) == (found.value, found.bend)
    assert stats.frechet_infinity(x, y, 1).value != found.value, "the seed has no effect"


def test_points_on_a_line_have_no_bend(monkeypatch: pytest.MonkeyPatch) -> None:
    from medlord_bench.stats import extrapolation

    monkeypatch.setattr(extrapolation, "frechet_distance", lambda x, y: 2.0 + 300.0 / len(x))
    found = stats.frechet_infinity(volumes(24, 0), volumes(24, 1), 0)
    assert found.value == pytest.approx(2.0)
    assert found.bend < 1e-12
    monkeypatch.setattr(extrapolation, "frechet_distance", lambda x, y: 2.0 + (300.0 / len(x)) ** 3)
    assert stats.frechet_infinity(volumes(24, 0), volumes(24, 1), 0).bend > 0.05


def test_too_few_volumes_are_refused_with_the_least_number() -> None:
    with pytest.raises(UserError, match="second set: 15 volumes or patients, expected at least 16"):
        stats.frechet_infinity(volumes(16, 0), volumes(15, 1), 0)


def test_value_is_the_mean_of_the_draws_whose_spread_falls_with_their_number() -> None:
    x, y = volumes(24, 0), volumes(24, 1, shift=0.5)
    found = stats.frechet_infinity(x, y, 0)
    assert found.value == pytest.approx(found.draws.mean()) and len(found.draws) == 4
    few = [stats.frechet_infinity(x, y, seed, 1).value for seed in range(20)]
    many = [stats.frechet_infinity(x, y, seed).value for seed in range(20)]
    assert np.std(many) < 0.75 * np.std(few)  # half of it in expectation
