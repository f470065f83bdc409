"""Diversity of a set: closed forms, and p-values that hold their level."""

from __future__ import annotations

import numpy as np
import pytest

from medlord_bench.errors import UserError
from medlord_bench.stats import diversity
from medlord_bench.stats.diversity import groups, mean_of_pairs, nearest_distance, of_one_set, relabelled, vendi_score


def distances(rows: np.ndarray) -> np.ndarray:
    return np.linalg.norm(rows[:, None] - rows[None], axis=-1)


def test_vendi_scores_in_closed_form() -> None:
    assert vendi_score(np.eye(7)) == pytest.approx(7)
    assert vendi_score(np.ones((7, 7))) == pytest.approx(1)
    assert vendi_score(np.kron(np.eye(3), np.ones((4, 4)))) == pytest.approx(3), "three kinds, four of each"
    a = 0.6  # eigenvalues of two members of similarity a: (1 + a) / 2 and (1 - a) / 2
    shares = np.array([(1 + a) / 2, (1 - a) / 2])
    assert vendi_score(np.array([[1, a], [a, 1]])) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


def test_statistics_of_many_sets_at_once_are_those_of_each() -> None:
    rng = np.random.default_rng(0)
    sets = np.stack([distances(rng.normal(size=(6, 3))) for _ in range(4)])
    for statistic in (mean_of_pairs, lambda d: vendi_score(np.exp(-(d**2))), nearest_distance):
        assert statistic(sets) == pytest.approx([float(statistic(one)) for one in sets])
    above = np.triu_indices(6, 1)
    assert mean_of_pairs(sets[0]) == pytest.approx(sets[0][above].mean())


def test_nearest_distance_of_points_on_a_line_and_of_copies() -> None:
    line = distances(np.array([[0.0], [1.0], [3.0]]))
    assert nearest_distance(line) == pytest.approx((1 * 1 * 2) ** (1 / 3))
    assert nearest_distance(np.zeros((3, 3))) == pytest.approx(diversity.CLOSEST)


def test_the_jackknife_of_a_mean_of_pairs_leaves_each_member_out() -> None:
    pairs = distances(np.random.default_rng(1).normal(size=(9, 2)))
    found = of_one_set(mean_of_pairs, pairs)
    assert found.value == pytest.approx(mean_of_pairs(pairs)) == pytest.approx(found.debiased)
    assert found.low < found.value < found.high
    with pytest.raises(UserError, match="2 members, expected at least 3"):
        of_one_set(mean_of_pairs, pairs[:2, :2])


@pytest.mark.slow
def test_the_interval_of_a_mean_of_pairs_covers_its_expectation() -> None:
    rng, covered = np.random.default_rng(2), 0
    for _ in range(400):
        pairs = distances(rng.normal(size=(16, 1)))
        found = of_one_set(mean_of_pairs, pairs)
        covered += found.low <= 2 / np.sqrt(np.pi) <= found.high  # the mean difference of two standard normals
    assert covered / 400 > 0.9


def test_groups_are_chains_the_largest_first() -> None:
    places = distances(np.array([[0.0], [5.0], [5.4], [5.8], [9.0], [9.3]]))
    assert groups(places, 0.5) == [[1, 2, 3], [4, 5], [0]]
    assert groups(np.zeros((3, 3)), 0.5) == [[0, 1, 2]]
    assert groups(places, 0.0) == [[i] for i in range(6)]


def test_relabelling_sees_less_and_more_variety_and_is_seeded() -> None:
    rng = np.random.default_rng(3)
    pairs = distances(np.concatenate([rng.normal(0, 0.2, (10, 4)), rng.normal(0, 1, (10, 4))]))
    lower, higher = relabelled(mean_of_pairs, pairs, 10, 0, 299, "test")
    assert lower == pytest.approx(1 / 300) and higher > 0.9
    turned = relabelled(mean_of_pairs, pairs[::-1, ::-1], 10, 0, 299, "test")
    assert turned[1] == pytest.approx(1 / 300)
    assert relabelled(mean_of_pairs, pairs, 10, 0, 299, "test") == (lower, higher)


@pytest.mark.parametrize("statistic", [mean_of_pairs, nearest_distance])
def test_equal_sets_are_rejected_at_the_level(statistic: diversity.Statistic) -> None:
    rng = np.random.default_rng(4)
    drawn = [distances(rng.normal(size=(16, 3))) for _ in range(200)]
    p = np.array([relabelled(statistic, pairs, 8, i, 99, "level")[0] for i, pairs in enumerate(drawn)])
    assert 0.02 <= (p <= 0.1).mean() <= 0.18  # 0.1 expected, three standard errors are 0.064
    assert 0.35 < p.mean() < 0.65
