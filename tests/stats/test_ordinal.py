"""The cumulative logit model: a published example, and samples without an estimate."""

from __future__ import annotations

import numpy as np
import pytest

from medlord_bench import stats
from medlord_bench.errors import UserError

# Agresti, Categorical Data Analysis, table 6.9: mental impairment (well to impaired) of 40 adults by socioeconomic status and
# life events.
WELL = [(1, 1), (1, 9), (1, 4), (1, 3), (0, 2), (1, 0), (0, 1), (1, 3), (1, 3), (1, 7), (0, 1), (0, 2)]
MILD = [(1, 5), (0, 6), (1, 3), (0, 1), (1, 8), (1, 2), (0, 5), (1, 5), (1, 9), (0, 3), (1, 3), (1, 1)]
MODERATE = [(0, 0), (1, 4), (0, 3), (0, 9), (1, 6), (0, 4), (0, 3)]
IMPAIRED = [(1, 8), (1, 2), (1, 7), (0, 5), (0, 4), (0, 4), (1, 8), (0, 8), (0, 9)]


def test_agresti_s_mental_impairment() -> None:
    design = np.array(WELL + MILD + MODERATE + IMPAIRED, dtype=float)
    found = stats.cumulative_logit(np.repeat([1, 2, 3, 4], [12, 12, 7, 9]), design)
    np.testing.assert_allclose(found.value, [-1.111, 0.319], atol=5e-4)  # the book's signs are of a lower answer
    np.testing.assert_allclose(found.error, [0.611, 0.121], atol=1e-3)


def test_repeating_every_answer_changes_no_clustered_error() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat([0.0, 1.0], 60)
    levels = np.clip(np.round(rng.normal(3 + group, 1)), 1, 5)
    once = stats.cumulative_logit(levels, group[:, None], np.arange(120))
    thrice = stats.cumulative_logit(np.tile(levels, 3), np.tile(group, 3)[:, None], np.tile(np.arange(120), 3))
    np.testing.assert_allclose(once.value, thrice.value, atol=1e-3)
    np.testing.assert_allclose(once.error, thrice.error, rtol=0.02)
    assert once.p[0] < 0.01


@pytest.mark.parametrize(
    ("levels", "group", "words"),
    [
        ([3, 3, 3, 3], [0, 0, 1, 1], "all answers are equal"),
        ([1, 2, 3, 5, 5, 5], [0, 0, 0, 1, 1, 1], "separated"),
        ([1, 2, 1, 3, 4, 3], [0, 0, 0, 1, 1, 1], "separated"),
        ([1, 2, 1, 3], [0, 0, 0, 0], "no answers, or all"),
    ],
)
def test_a_sample_without_an_estimate_ends_in_a_sentence(levels: list[int], group: list[int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        stats.cumulative_logit(levels, np.array(group, dtype=float)[:, None])
