"""The joint test of many numbers: its size, what it sees, missing numbers, and bad input."""

from __future__ import annotations

import numpy as np
import pytest

from medlord_bench import stats
from medlord_bench.errors import UserError


def test_the_value_is_the_energy_distance_in_deviations_of_the_reference() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((8, 3)) * 4, rng.standard_normal((9, 3)) * 2
    scaled = x / y.std(0, ddof=1), y / y.std(0, ddof=1)
    assert stats.joint(x, y, 0, 0).value == pytest.approx(stats.energy_distance(*scaled, 0, 0).value, abs=1e-12)


def test_a_number_that_hardly_varies_does_not_decide_the_value_alone() -> None:
    rng = np.random.default_rng(1)
    x, y = (rng.standard_normal((8, 2)) * [1, 0.01] for _ in range(2))
    x[:, 1] += 5
    alone, held = stats.joint(x, y, 0, 99), stats.joint(x, y, 0, 99, [0.0, 5.0])
    assert alone.value > 100 and held.value < 3 and alone.p == held.p
    scaled = [rows / [y[:, 0].std(ddof=1), 5] for rows in (x, y)]
    assert held.value == pytest.approx(stats.energy_distance(*scaled, 0, 0).value)


def test_equal_sets_are_rejected_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(2)
    found = [stats.joint(rng.standard_gamma(1, (8, 12)), rng.standard_gamma(1, (10, 12)), i, 199) for i in range(300)]
    for ps in ([one.p for one in found], [one.p_each.min() for one in found]):
        low, high = stats.wilson(sum(p <= 0.05 for p in ps), len(ps), 0.999)
        assert low <= 0.05 <= high


def test_one_changed_number_among_many_is_seen_and_named() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((16, 60)), rng.standard_normal((16, 60))
    x[:, 7] += 2.5
    found = stats.joint(x, y, 0, 999)
    assert found.p < 0.01 and found.p_each.argmin() == 7 and found.p_each[7] < 0.01
    assert (found.p_each < 0.05).sum() == 1


def test_a_small_change_of_numbers_that_go_together_is_seen() -> None:
    """Two columns that differ by little between patients' common level: neither column alone shows it."""
    rng = np.random.default_rng(6)
    rows = rng.standard_normal((40, 1)) + 0.2 * rng.standard_normal((40, 2))
    rows[:16] += [0.4, -0.4]
    found = stats.joint(rows[:16], rows[16:], 0, 999)
    assert found.p < 0.01 and found.p_each.min() > 0.05


def test_less_variety_is_seen() -> None:
    rng = np.random.default_rng(4)
    assert stats.joint(rng.standard_normal((16, 20)) * 0.2, rng.standard_normal((16, 20)), 0, 999).p < 0.01


def test_missing_and_constant_numbers_add_nothing() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((8, 4)), rng.standard_normal((8, 4))
    wider = [np.column_stack([rows, np.full(8, np.nan), np.full(8, 3.0)]) for rows in (x, y)]
    narrow, wide = stats.joint(x, y, 0, 499), stats.joint(*wider, 0, 499)
    assert (wide.value, wide.p) == (narrow.value, narrow.p)
    assert wide.p_each[4:].tolist() == [1.0, 1.0]
    x[0, 0] = np.nan
    assert np.isfinite(stats.joint(x, y, 0, 99).value)


def test_rows_that_cannot_be_compared() -> None:
    with pytest.raises(UserError, match="at least 3 a side"):
        stats.joint(np.zeros((2, 3)), np.zeros((5, 3)), 0)
    with pytest.raises(UserError, match="expected"):
        stats.joint(np.zeros((4, 3)), np.zeros((5, 2)), 0)
