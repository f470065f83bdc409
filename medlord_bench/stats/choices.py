"""Choices between two volumes: how often they are right, and how dependent they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medlord_bench.errors import UserError
from medlord_bench.stats.arrays import LEVEL, Matrix, Vector
from medlord_bench.stats.bradley_terry import Strengths, bradley_terry

Ids = NDArray[np.intp]


@dataclass(frozen=True)
class Accuracy:
    """Share of choices that are right. inflation: how much larger its variance is than that of independent choices, at
    least 1. p: two-sided, of the share being a half."""

    value: float
    low: float
    high: float
    p: float
    inflation: float


def accuracy(right: ArrayLike, volumes: ArrayLike) -> Accuracy:
    """Accuracy of two-alternative forced choices (N,), of volumes (N, 2): ids of the two volumes of each choice.

    Choices that share a volume are dependent; the variance counts all such pairs of choices (Aronow, Samii & Assenova
    2015). The interval is Wilson's at the effective number N / inflation (Kish 1965). The test is against a half, with
    Student's t at the smaller number of volumes of a side less one. Where all or no choices are right
    the dependence is not seen: the volumes count, not the choices. Readers are fixed: the result is for these readers and other volumes. Raises `UserError` for no choices.
    """
    from scipy.stats import norm, t

    y, ids = np.asarray(right, dtype=np.float64), np.asarray(volumes)
    if y.ndim != 1 or not len(y) or ids.shape != (len(y), 2) or not np.isin(y, (0, 1)).all():
        raise UserError(
            f"accuracy of choices: {y.shape} answers of volumes {ids.shape}, expected 0 or 1 (N,) of (N, 2)"
        )
    value, n = float(y.mean()), len(y)
    independent = value * (1 - value) * n
    dependent = float(shared(y[:, None] - value, ids)[0, 0])
    units = min(len(np.unique(ids[:, 0])), len(np.unique(ids[:, 1])))
    inflation = max(1.0, dependent / independent) if independent else n / units
    z, size = float(norm.ppf(0.5 + LEVEL / 2)), n / inflation
    middle = (value + z * z / (2 * size)) / (1 + z * z / size)
    reach = z / (1 + z * z / size) * math.sqrt(value * (1 - value) / size + z * z / (4 * size * size))
    statistic = abs(value - 0.5) * 2 * math.sqrt(size)
    p = float(2 * t.sf(statistic, units - 1)) if units > 1 else 1.0
    return Accuracy(value, max(middle - reach, 0.0), min(middle + reach, 1.0), p, inflation)


def strengths(preferred: ArrayLike, other: ArrayLike, volumes: ArrayLike, count: int, reference: int = 0) -> Strengths:
    """Bradley-Terry strengths of `count` sources from single choices, with errors that allow for shared volumes.

    preferred, other: (N,), places of the sources. volumes: (N, 2), ids of the volumes chosen and not chosen. The errors are
    the larger of the model's and of the sandwich over choices that share a volume; the interval is Student's t at the
    smallest number of volumes of a source less one. For these readers: one who would be drawn anew may differ more.
    Raises `UserError` as `bradley_terry`.
    """
    from scipy.stats import t

    first, second, ids = np.asarray(preferred), np.asarray(other), np.asarray(volumes)
    wins = np.zeros((count, count))
    np.add.at(wins, (first, second), 1)
    model = bradley_terry(wins, reference)
    lost = 1 / (1 + np.exp(model.value[first] - model.value[second]))
    scores = np.zeros((len(first), count))
    scores[np.arange(len(first)), first] += lost
    scores[np.arange(len(first)), second] -= lost
    sandwich = model.covariance @ shared(scores, ids) @ model.covariance
    robust = np.sqrt(np.maximum(sandwich.diagonal(), model.covariance.diagonal()))
    owners = np.concatenate([first, second])
    flat = np.concatenate([ids[:, 0], ids[:, 1]])
    fewest = min(len(np.unique(flat[owners == one])) for one in range(count))
    reach = robust * (float(t.ppf(0.5 + LEVEL / 2, fewest - 1)) if fewest > 1 else np.inf)
    low, high = (model.value + side * np.where(robust > 0, reach, 0.0) for side in (-1, 1))
    return Strengths(model.value, robust, low, high, sandwich)


def shared(scores: ArrayLike, volumes: ArrayLike) -> Matrix:
    """(p, p): the sum of s_i s_j' over all choices i, j that have a volume in common; scores (N, p), volumes (N, 2)."""
    parts, ids = np.asarray(scores, dtype=np.float64), np.asarray(volumes)
    flat: Ids = np.unique(ids, return_inverse=True)[1].reshape(ids.shape)
    ordered = np.sort(flat, axis=1)
    both = ordered[:, 0] * (flat.max() + 1) + ordered[:, 1]
    one = _sums(np.concatenate([parts, parts]), np.concatenate([flat[:, 0], flat[:, 1]]))
    two = _sums(parts, both)  # choices between the same two volumes are in both of their sums
    return np.asarray(one.T @ one - two.T @ two)


def _sums(parts: Matrix, groups: Vector | Ids) -> Matrix:
    """(G, p): sums by group."""
    number = np.unique(groups, return_inverse=True)[1]
    found = np.zeros((int(number.max()) + 1, parts.shape[1]))
    np.add.at(found, number, parts)
    return found
