"""d' and AUC against their definitions, another library, and simulated readers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from medlord_bench import stats
from medlord_bench.errors import UserError


def test_d_prime_by_its_definition() -> None:
    assert stats.d_prime(8, 10, 3, 10) == pytest.approx(norm.ppf(8.5 / 11) - norm.ppf(3.5 / 11))
    assert stats.d_prime(5, 10, 5, 10) == 0
    assert np.isfinite(stats.d_prime(10, 10, 0, 10))
    with pytest.raises(UserError, match="11 of 10"):
        stats.d_prime(11, 10, 0, 10)


def test_area_equals_scikit_learn_s() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    x, y = rng.integers(1, 11, 40), rng.integers(1, 8, 30)
    expected = metrics.roc_auc_score([1] * 40 + [0] * 30, [*x, *y])
    assert stats.area(x, y, 0, 50).value == pytest.approx(expected, abs=1e-12)


def test_the_interval_covers_the_truth() -> None:
    truth, inside = float(norm.cdf(1 / 2**0.5)), 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        found = stats.area(rng.standard_normal(30) + 1, rng.standard_normal(30), seed, 300)
        inside += found.low <= truth <= found.high
    low, high = stats.wilson(inside, 200, 0.999)
    assert low <= 0.95 <= high


def test_readers_are_averaged_and_must_be_the_same() -> None:
    x, y = np.array([[2.0, 1.0], [3.0, 1.0]]), np.array([[1.0, 1.0], [2.0, 1.0]])
    assert stats.area(x, y, 0, 10).value == pytest.approx((0.875 + 0.5) / 2)
    with pytest.raises(UserError, match="same readers"):
        stats.area(x, y[:, :1], 0, 10)
    with pytest.raises(UserError, match="at least one case"):
        stats.area([], [1.0], 0, 10)


def test_sensitivity_is_the_mean_d_prime_of_readers_with_the_bootstrap_s_interval() -> None:
    """The reference of the interval draws cases one resample after the other."""
    rng = np.random.default_rng(4)
    signals, noises = rng.uniform(size=(60, 3)) < (0.8, 0.7, 0.6), rng.uniform(size=(50, 3)) < (0.3, 0.2, 0.4)

    def mean_d_prime(x: np.ndarray, y: np.ndarray) -> float:
        return float(
            np.mean([stats.d_prime(int(a.sum()), len(a), int(b.sum()), len(b)) for a, b in zip(x.T, y.T, strict=True)])
        )

    found = stats.sensitivity(signals, noises, seed=0, bootstraps=4000)
    assert found.value == pytest.approx(mean_d_prime(signals, noises), rel=1e-12)
    drawn = [mean_d_prime(signals[rng.integers(60, size=60)], noises[rng.integers(50, size=50)]) for _ in range(2000)]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.06)
