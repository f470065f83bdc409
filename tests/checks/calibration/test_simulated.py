"""The checks on simulated features hold for the statistics as they are, and fail for the usual mistakes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medlord_bench import stats
from medlord_bench.checks.calibration import simulated
from medlord_bench.checks.calibration.simulated import CHECKS, COVERAGE_RANGE, DIFFERENT, Sets, Simulated, simulate

FEW = 60


def run(repeats: int = FEW, seed: int = 0) -> dict[str, Simulated]:
    return {one.name: one for one in simulate(seed, repeats)}


def failed(found: dict[str, Simulated], start: str) -> list[bool]:
    return [not one.ok for name, one in found.items() if name.startswith(start)]


def test_every_check_holds_and_equal_seeds_give_equal_numbers() -> None:
    told: list[tuple[int, int]] = []
    found = list(simulate(0, FEW, lambda done, total: told.append((done, total))))
    assert [one.name for one in found if not one.ok] == []
    assert len({one.name for one in found}) == len(found)
    assert told[-1][0] == told[-1][1] == FEW * (len(CHECKS) + 2 * len(DIFFERENT))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    again = run()
    assert [(one.name, one.seen) for one in again.values()] == [(one.name, one.seen) for one in found]
    assert [one.seen for one in run(seed=1).values()] != [one.seen for one in found]


def test_slices_of_a_volume_share_what_is_stated() -> None:
    x, y = Sets(400, 400, 2, 5, shared=0.8, shift=1.0, scale=2.0).draw(0)
    first, second = np.array(x), np.array(y)
    for d in range(5):
        assert np.corrcoef(second[:, 0, d], second[:, 1, d])[0, 1] == pytest.approx(0.8, abs=0.1)
    deviations = np.arange(1, 6) ** -0.5
    np.testing.assert_allclose(second.std((0, 1)), deviations, rtol=0.12)
    np.testing.assert_allclose(first.std((0, 1)), 2 * deviations, rtol=0.12)
    np.testing.assert_allclose((first.mean((0, 1)) - second.mean((0, 1))) / deviations, 1, atol=0.45)


@pytest.mark.parametrize("start", ["kernel distance, equal", "energy distance, equal"])
def test_p_values_that_are_too_small_fail(start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("kernel_distance", "energy_distance"):
        right = getattr(stats, name)

        def too_small(*arguments, right=right):
            found = right(*arguments)
            return replace(found, p=found.p**2)

        monkeypatch.setattr(stats, name, too_small)
    monkeypatch.setattr(simulated, "DIFFERENT", DIFFERENT[:1])
    assert failed(run(), start) == [True]


def test_slices_left_out_one_by_one_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mistake that volumes are there for: correlated slices taken as independent."""
    right = stats.frechet_jackknife

    def by_slice(x, y):
        return right(*([row[None] for group in groups for row in group] for groups in (x, y)))

    monkeypatch.setattr(stats, "frechet_jackknife", by_slice)
    monkeypatch.setattr(simulated, "DIFFERENT", (Sets(16, 16, 5, 8, 0.5, shift=1.0),))
    found = run()
    assert failed(found, "Fréchet distance's interval (") == [True]
    assert failed(found, "Fréchet distance's interval, all") == [True]


def test_an_interval_that_misses_its_own_value_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    right = stats.jackknife

    def shifted(value, *without, squared=False):
        """As a percentile bootstrap is, which repeats volumes."""
        found = right(value, *without, squared=squared)
        return replace(found, low=found.low + 3 * found.error, high=found.high + 3 * found.error)

    monkeypatch.setattr(stats, "jackknife", shifted)
    monkeypatch.setattr(simulated, "DIFFERENT", DIFFERENT[:1])
    assert failed(run(), "Fréchet distance's interval and its own value") == [True]


@pytest.mark.parametrize(("wider", "start"), [(0.5, "median interval, n 31"), (0.5, "kernel distance's interval")])
def test_intervals_that_are_too_short_fail(wider: float, start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("median_interval", "kernel_distance"):
        right = getattr(stats, name)

        def short(*arguments, right=right):
            found = right(*arguments)
            low, high = (found.value + wider * (end - found.value) for end in (found.low or 0.0, found.high or 0.0))
            return replace(found, low=low, high=high)

        monkeypatch.setattr(stats, name, short)
    monkeypatch.setattr(simulated, "DIFFERENT", DIFFERENT[:1])
    assert failed(run(), start) == [True]


@pytest.mark.slow
def test_the_interval_of_every_configuration_covers_in_93_to_98_percent() -> None:
    found = [one for name, one in run(1500, seed=2).items() if name.startswith("Fréchet distance's interval (")]
    rates = [float(one.seen.split("%")[0]) / 100 for one in found]
    assert len(rates) == len(DIFFERENT)
    assert min(rates) >= COVERAGE_RANGE[0]
    assert max(rates) <= COVERAGE_RANGE[1]
