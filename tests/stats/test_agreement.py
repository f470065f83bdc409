"""Agreement of readers against published worked examples and another library."""

from __future__ import annotations

import numpy as np
import pytest

from medlord_bench import stats
from medlord_bench.errors import UserError

X = np.nan
# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section D: four observers, twelve units.
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, X, X, X],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, X, 3],
        [X, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, X],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, X],
    ]
)


@pytest.mark.parametrize(("difference", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorff_s_reliability_data(difference: stats.Difference, alpha: float) -> None:
    found = stats.krippendorff_alpha(PUBLISHED, difference)
    assert found is not None and round(found, 3) == alpha


def test_alpha_of_full_agreement_chance_and_nothing() -> None:
    rng = np.random.default_rng(0)
    same = np.tile(rng.integers(1, 6, 50), (3, 1)).astype(float)
    assert stats.krippendorff_alpha(same, "ordinal") == 1
    chance = stats.krippendorff_alpha(rng.integers(1, 6, (3, 2000)).astype(float), "ordinal")
    assert chance is not None and abs(chance) < 0.05
    assert stats.krippendorff_alpha(np.full((2, 5), 3.0), "ordinal") is None
    assert stats.krippendorff_alpha(np.array([[1.0, X], [X, 2.0]]), "nominal") is None


def test_kappa_equals_scikit_learn_s() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    first = rng.integers(1, 6, 60)
    second = np.clip(first + rng.integers(-1, 2, 60), 1, 5)
    expected = metrics.cohen_kappa_score(first, second, labels=[1, 2, 3, 4, 5], weights="quadratic")
    assert stats.weighted_kappa(first, second, 5) == pytest.approx(expected, abs=1e-12)


def test_kappa_of_equal_ratings_and_of_wrong_ones() -> None:
    assert stats.weighted_kappa([3, 3], [3, 3], 5) is None
    with pytest.raises(UserError, match="from 1 to 5"):
        stats.weighted_kappa([0, 3], [3, 3], 5)
    with pytest.raises(UserError, match="from 1 to 5"):
        stats.weighted_kappa([1, 3], [3], 5)
