"""The cumulative logit model: a published example, and samples without an estimate."""

from __future__ import annotations

import warnings

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
        ([1, 2, 2, 2, 3, 3], [0, 0, 0, 1, 1, 1], "separated"),  # but for ties
        ([1, 1, 2, 3, 3, 3], [0, 0, 0, 0, 1, 1], "separated"),
    ],
)
def test_a_sample_without_an_estimate_ends_in_a_sentence(levels: list[int], group: list[int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        stats.cumulative_logit(levels, np.array(group, dtype=float)[:, None])


def test_a_source_that_is_separated_within_every_reader_has_no_estimate() -> None:
    """No column alone is separated: reader 2 answers lower, and both readers put the model below real."""
    levels = [3, 4, 5, 4, 1, 2, 2, 3, 2, 3, 3, 4, 1, 1, 2, 1]
    model = np.tile(np.repeat([0.0, 1.0], 4), 2)
    reader = np.repeat([0.0, 1.0], 8)
    with pytest.raises(UserError, match="separated"):
        stats.cumulative_logit([5, 5, 4, 4, 3, 3, 2, 2, 4, 4, 3, 3, 2, 2, 1, 1], np.stack([model, reader], 1))
    found = stats.cumulative_logit(levels, np.stack([model, reader], 1))
    assert found.value[0] < 0 and found.error[0] < 5


def test_the_linear_program_agrees_with_the_fit() -> None:
    """Where the likelihood has a maximum, statsmodels finds a finite one; else its coefficients run away."""
    from statsmodels.miscmodels.ordinal_model import OrderedModel

    rng = np.random.default_rng(1)
    seen = {True: 0, False: 0}
    for _ in range(40):
        group = np.repeat([0.0, 1.0], 6)
        levels = np.clip(np.round(rng.normal(2 + 2 * group, 0.9)), 1, 5)
        codes = np.unique(levels, return_inverse=True)[1]
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = OrderedModel(codes, group[:, None], distr="logit").fit(
                method="bfgs", maxiter=2000, gtol=1e-9, disp=False
            )
        runs_away = abs(fit.params[0]) > 8
        seen[runs_away] += 1
        if runs_away:
            with pytest.raises(UserError, match="separated"):
                stats.cumulative_logit(levels, group[:, None])
        else:
            assert stats.cumulative_logit(levels, group[:, None]).value[0] == pytest.approx(fit.params[0], abs=1e-2)
    assert min(seen.values()) >= 5
