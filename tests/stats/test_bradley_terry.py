"""Bradley-Terry strengths: a published example, coverage of the intervals, and samples without an estimate."""

from __future__ import annotations

import numpy as np
import pytest

from medlord_bench import stats
from medlord_bench.errors import UserError

# Agresti, Categorical Data Analysis, table 10.10: American League baseball, 1987. Row beat column so many times.
TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
WINS = np.array(
    [
        [0, 7, 9, 7, 7, 9, 11],
        [6, 0, 7, 5, 11, 9, 9],
        [4, 6, 0, 7, 7, 8, 12],
        [6, 8, 6, 0, 6, 7, 10],
        [6, 2, 6, 7, 0, 7, 12],
        [4, 4, 5, 6, 6, 0, 6],
        [2, 4, 1, 3, 1, 7, 0],
    ]
)
PUBLISHED = (1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0.0)  # log strengths, Baltimore 0


def test_agresti_s_baseball_teams() -> None:
    found = stats.bradley_terry(WINS, reference=6)
    np.testing.assert_allclose(found.value.round(2), PUBLISHED, atol=0.011)
    assert found.error[6] == 0


def test_equals_a_logistic_regression() -> None:
    import statsmodels.api as sm

    rows, outcomes, weights = [], [], []
    for i in range(7):
        for j in range(7):
            if WINS[i, j]:
                row = np.zeros(7)
                row[i], row[j] = 1, -1
                rows += [row, -row]
                outcomes += [1, 0]
                weights += [WINS[i, j] / 2] * 2
    model = sm.GLM(outcomes, np.array(rows)[:, :6], family=sm.families.Binomial(), freq_weights=np.array(weights)).fit()
    found = stats.bradley_terry(WINS, reference=6)
    np.testing.assert_allclose(found.value[:6], model.params, atol=1e-4)
    np.testing.assert_allclose(found.error[:6], model.bse, rtol=1e-3)


def test_intervals_cover_the_strengths() -> None:
    truth, inside = np.array([0.0, 0.5, 1.0]), []
    chance = 1 / (1 + np.exp(-np.subtract.outer(truth, truth)))
    for seed in range(300):
        wins = np.zeros((3, 3))
        rng = np.random.default_rng(seed)
        for i, j in ((0, 1), (0, 2), (1, 2)):
            wins[i, j] = rng.binomial(40, chance[i, j])
            wins[j, i] = 40 - wins[i, j]
        found = stats.bradley_terry(wins)
        inside += ((found.low <= truth) & (truth <= found.high))[1:].tolist()
    assert 0.93 <= np.mean(inside) <= 0.97


def test_a_separated_sample_is_named() -> None:
    with pytest.raises(UserError, match="separated: one side won every choice"):
        stats.bradley_terry([[0, 5, 5], [0, 0, 3], [0, 2, 0]])
    with pytest.raises(UserError, match="expected counts"):
        stats.bradley_terry([[0, -1], [1, 0]])
