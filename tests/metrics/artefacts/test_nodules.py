"""Compact bright spots against tubes."""

from __future__ import annotations

import numpy as np
import pytest

from medlord_bench.metrics.artefacts.nodules import nodules, roundness

MM = (1.5, 1.5, 1.5)


def lung(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(-850, 25, (64, 64, 64))


def paint(hu: np.ndarray, inside: np.ndarray) -> np.ndarray:
    return np.where(inside, 40, hu)


def grid() -> np.ndarray:
    return np.indices((64, 64, 64)) * 1.5


@pytest.mark.parametrize(("widths", "expected"), [((4, 4, 4), 1.0), ((8, 4, 4), 0.25), ((1e4, 4, 4), 0.0)])
def test_roundness_of_a_gaussian_is_the_ratio_of_its_curvatures(widths: tuple[float, ...], expected: float) -> None:
    at = np.indices((41, 41, 41)) - 20
    smooth = np.exp(-sum(a**2 / (2 * w**2) for a, w in zip(at, widths, strict=True)))
    found = roundness(smooth.astype(np.float64), np.array([[20, 20, 20]]), (1.0, 1.0, 1.0))
    assert found[0] == pytest.approx(expected, abs=0.03)


def test_balls_are_counted_and_tubes_are_not() -> None:
    x, y, z = grid()
    balls = lung()
    places = [(20, 20, 20), (20, 70, 40), (60, 30, 70), (70, 70, 20)]
    for a, b, c in places:
        balls = paint(balls, (x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 < 3.2**2)
    tubes = lung()
    for a, b in ((25, 25), (45, 70), (70, 40)):
        tubes = paint(tubes, (x - a) ** 2 + (y - b) ** 2 < 3.2**2)
    litres = (64 * 1.5) ** 3 / 1e6
    assert nodules(balls.astype(np.int16), MM)[0] * litres == pytest.approx(len(places), rel=0.3)
    assert nodules(tubes.astype(np.int16), MM) == (0.0, 0.0)


def test_a_volume_without_lung_has_no_number() -> None:
    assert np.isnan(nodules(np.full((32, 32, 16), 40, np.int16), MM)).all()
