"""Comparison of two sets of regional volume ratios: distances with their jackknife intervals, and the joint test."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from medlord_bench import stats

from .volumes import Vector


def _without_each(statistic: Callable[[Vector, Vector], float], x: Vector, y: Vector) -> tuple[Vector, Vector]:
    """The statistic without each value of x, and without each of y."""
    without_x = [statistic(np.delete(x, i), y) for i in range(len(x))]
    return np.array(without_x), np.array([statistic(x, np.delete(y, i)) for i in range(len(y))])


def wasserstein(x: Vector, y: Vector) -> tuple[stats.Jackknife, stats.Tails]:
    """The 1-Wasserstein distance with the interval of its expectation at these n, and whether one volume decides it.

    Simulated with 8 and 16 log-normal ratios against 24 and 88, equal or shifted: coverage 90 to 98 %.
    """
    value, without = stats.wasserstein1(x, y), _without_each(stats.wasserstein1, x, y)
    return stats.jackknife(value, *without), stats.tails(value, *without)


@dataclass(frozen=True)
class VarianceRatio:
    """Variance of x over that of y. low, high: None if values repeat so much that a leave-one-out has no variance."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> bool:
        return self.low is not None


def variance_ratio(x: Vector, y: Vector) -> VarianceRatio | None:
    """None if all of y are equal. The interval is the jackknife's of the logarithm, on which errors are symmetric.

    Simulated with 8 and 16 log-normal ratios against 24 and 88: coverage 92 to 95 %. (The F distribution's interval
    would be valid for normal ratios only.)
    """
    value = stats.variance_ratio(x, y)
    if value is None:
        return None

    def logarithm(one: Vector, other: Vector) -> float:
        ratio = stats.variance_ratio(one, other)
        return math.log(ratio) if ratio else math.nan

    without = _without_each(logarithm, x, y) if value > 0 else ()
    if not without or any(np.isnan(part).any() for part in without):
        return VarianceRatio(value)
    found = stats.jackknife(math.log(value), *without)
    return VarianceRatio(value, math.exp(found.low), math.exp(found.high))


def joint(x: Vector, y: Vector, seed: int, permutations: int) -> stats.TwoSample:
    """The energy distance of vectors over regions (n, R) and (m, R), with its interval, and p if requested.

    The value is in standard deviations of y, the reference, so that generators are comparable. The permutation test
    requires a scale that does not depend on the labels: it uses standard deviations of both together (with y's, 8
    against 8 samples of one distribution were distinguished in 8 % of simulations at 5 %).
    """
    value = stats.energy_distance(x / y.std(0, ddof=1), y / y.std(0, ddof=1), seed, 0)
    pooled = np.concatenate([x, y]).std(0, ddof=1)
    return replace(value, p=stats.energy_distance(x / pooled, y / pooled, seed, permutations).p)
