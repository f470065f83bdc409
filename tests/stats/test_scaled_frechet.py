"""The Fréchet distance in units of the reference, against a matrix square root and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import sqrtm

from medlord_bench import stats
from medlord_bench.errors import UserError


def rows(n: int, d: int, seed: int, shift: float = 0.0) -> NDArray[np.float64]:
    """Correlated columns of very different units, as radiomic features are."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((n, d)) @ np.random.default_rng(7).standard_normal((d, d)) + shift
    return mixed * 10.0 ** np.linspace(-6, 9, d)


def published(x: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Konz, Osuala et al. 2026, eq. 3, written out with scipy's matrix square root."""
    mean, deviation = np.mean(reference, axis=0), np.std(reference, axis=0)
    x, y = (x - mean) / deviation, (reference - mean) / deviation
    apart = x.mean(0) - y.mean(0)
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    return float(apart @ apart + np.trace(s) + np.trace(t) - 2 * np.trace(sqrtm(s @ t)).real)


@pytest.mark.parametrize(("n", "m", "d", "close"), [(40, 50, 12, 1e-8), (9, 12, 30, 1e-4)])
def test_value_is_that_of_a_matrix_square_root(n: int, m: int, d: int, close: float) -> None:
    """With fewer rows than columns the square root of a singular matrix is itself known to about 1e-5 only."""
    x, y = rows(n, d, 0, shift=0.5), rows(m, d, 1)
    assert stats.scaled_frechet(x, y) == pytest.approx(published(x, y), rel=close)


def test_units_do_not_matter_and_the_reference_is_one_of_both() -> None:
    x, y = rows(15, 6, 0), 3 * rows(15, 6, 1)
    factor = np.array([1e-3, 5.0, 1e6, 2.0, 7.0, 0.1])
    assert stats.scaled_frechet(x * factor + 4, y * factor + 4) == pytest.approx(stats.scaled_frechet(x, y))
    assert stats.scaled_frechet(y, x) > 3 * stats.scaled_frechet(x, y)


def test_columns_without_a_unit_are_left_out() -> None:
    x, y = rows(12, 5, 0), rows(12, 5, 1)
    constant = np.column_stack([y, np.full(12, 0.1)])
    varied = np.column_stack([x, np.arange(12.0)])
    assert stats.scaled_frechet(varied, constant) == pytest.approx(stats.scaled_frechet(x, y))
    with pytest.raises(UserError, match="every feature is constant"):
        stats.scaled_frechet(x, np.ones((12, 5)))


def test_jackknife_leaves_out_whole_groups_with_their_units() -> None:
    x, y = np.split(rows(10, 4, 0), 10), np.split(rows(12, 4, 1), 6)
    found = stats.scaled_frechet_jackknife(x, y)
    assert found.value == pytest.approx(published(np.concatenate(x), np.concatenate(y)))
    assert len(found.without_x) == 10 and len(found.without_y) == 6
    assert found.without_x[3] == pytest.approx(published(np.concatenate(x[:3] + x[4:]), np.concatenate(y)))
    assert found.without_y[0] == pytest.approx(published(np.concatenate(x), np.concatenate(y[1:])))
    with pytest.raises(UserError, match="reference: 1 volumes"):
        stats.scaled_frechet_jackknife(x, y[:1])


def test_p_is_uniform_for_equal_sets_and_small_for_others() -> None:
    values = [stats.scaled_frechet_p(rows(8, 20, 2 * i), rows(8, 20, 2 * i + 1), 0, 99) for i in range(200)]
    assert np.mean(np.array(values) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
    assert 0.4 < np.mean(values) < 0.6
    moved = rows(12, 20, 0) + 2 * rows(12, 20, 3).std(0)
    assert stats.scaled_frechet_p(moved, rows(12, 20, 1), 0, 499) == pytest.approx(1 / 500)
    assert stats.scaled_frechet_p(moved, rows(12, 20, 1), 0, 499) == stats.scaled_frechet_p(
        moved, rows(12, 20, 1), 0, 499
    )


def test_p_of_one_volume_repeated() -> None:
    """Some relabellings have only equal rows as their reference, which gives no unit."""
    same = np.tile(rows(1, 5, 0), (4, 1))
    assert 0 < stats.scaled_frechet_p(same, rows(4, 5, 1), 0, 199) <= 1


def test_largest_shifts_name_the_columns() -> None:
    x, y = rows(30, 6, 0), rows(30, 6, 0)
    x[:, 4] -= 5 * y[:, 4].std()
    x[:, 1] += 2 * y[:, 1].std()
    x[:, 0] = y[:, 0] = 1.0
    found = stats.largest_shifts(x, y, 2)
    assert [place for place, _ in found] == [4, 1]
    assert [shift for _, shift in found] == pytest.approx([-5, 2])
