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
    """Share of choices that are right, its 95 % interval, and p (two-sided) of the share being a half.

    size: how many independent choices say as much; interval and p are exact binomial ones of `value` at it.
    """

    value: float
    low: float
    high: float
    p: float
    size: float


@dataclass(frozen=True)
class Rate:
    """Share of answers, its 95 % interval, and how many independent answers say as much."""

    value: float
    low: float
    high: float
    size: float


def accuracy(right: ArrayLike, volumes: ArrayLike) -> Accuracy:
    """Accuracy of two-alternative forced choices (N,), of volumes (N, 2): ids of the two volumes of each choice.

    Choices that share a volume are dependent; the variance counts all such pairs of choices (Aronow, Samii & Assenova
    2015). The interval is that of Clopper and Pearson at the effective number of choices, with the correction for the
    degrees of freedom (Korn & Graubard 1998); the test is the binomial test at the same number, so p is below 0.05 if and
    only if the interval leaves out a half. Choices that share no volume give the exact binomial test. Where all or no
    choices are right the dependence is not seen: the volumes count, not the choices. No other answers get a smaller p
    than these. Readers are fixed: the result is for these readers and other volumes. Raises `UserError` for no choices.
    """
    y, ids = _binary(right, volumes)
    value, units = float(y.mean()), min(len(np.unique(ids[:, 0])), len(np.unique(ids[:, 1])))
    size = _tested_size(y, ids, units)
    return Accuracy(value, *_exact_interval(value, size), _exact_p(value, size), size)


def rate(answers: ArrayLike, volumes: ArrayLike) -> Rate:
    """Share of the answers (N,) that are 1, each to one volume (N,) of these ids: answers to one volume are dependent.

    Wilson's interval at the effective number of answers (Kish 1965). Raises `UserError` for no answers.
    """
    from statsmodels.stats.proportion import proportion_confint

    one = np.asarray(volumes)
    alone = one.max(initial=0) + 1 + np.arange(len(one))  # nothing but the volume is shared
    y, ids = _binary(answers, np.stack([one, alone], 1))
    value, size = float(y.mean()), _effective(y, ids, len(np.unique(one)))
    low, high = proportion_confint(value * size, size, 1 - LEVEL, method="wilson")
    return Rate(value, float(low), float(high), size)


def _binary(answers: ArrayLike, volumes: ArrayLike) -> tuple[Vector, Ids]:
    y, ids = np.asarray(answers, dtype=np.float64), np.asarray(volumes)
    if y.ndim != 1 or not len(y) or ids.shape != (len(y), 2) or not np.isin(y, (0, 1)).all():
        raise UserError(
            f"accuracy of choices: {y.shape} answers of volumes {ids.shape}, expected 0 or 1 (N,) of (N, 2)"
        )
    return y, ids


def _effective(y: Vector, ids: Ids, units: int) -> float:
    """The number of independent answers with the same variance; that of volumes where all answers are equal."""
    value = y.mean()
    if value in (0, 1):
        return float(units)
    independent = value * (1 - value) * len(y)
    return float(len(y) / max(1.0, float(shared(y[:, None] - value, ids)[0, 0]) / independent))


def _tested_size(y: Vector, ids: Ids, units: int) -> float:
    """`_effective`, smaller where few volumes estimate the variance. units: volumes of the side that has fewer."""
    from scipy.optimize import brentq
    from scipy.stats import t

    value = float(y.mean())
    if units == 1 or value in (0, 1):
        return float(units)
    size = _effective(y, ids, units)
    size *= float(t.ppf(0.5 + LEVEL / 2, len(y) - 1) / t.ppf(0.5 + LEVEL / 2, units - 1)) ** 2
    least = _exact_p(1.0, units)
    if _exact_p(value, size) >= least:
        return size
    return float(brentq(lambda fewer: math.log(_exact_p(value, fewer) / least), 1e-6, size))


def _exact_p(value: float, size: float) -> float:
    """Of the two-sided binomial test against a half; the incomplete beta function is the tail for any size."""
    from scipy.special import betainc

    most = max(value, 1 - value) * size
    return min(1.0, 2 * float(betainc(most, size - most + 1, 0.5)))


def _exact_interval(value: float, size: float) -> tuple[float, float]:
    """Of Clopper and Pearson (1934), for any size."""
    from scipy.stats import beta

    right, tail = value * size, (1 - LEVEL) / 2
    low = float(beta.ppf(tail, right, size - right + 1)) if value > 0 else 0.0
    high = float(beta.ppf(1 - tail, right + 1, size - right)) if value < 1 else 1.0
    return low, high


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
