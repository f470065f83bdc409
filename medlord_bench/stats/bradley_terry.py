"""Strengths from choices between two: the model of Bradley and Terry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medlord_bench.errors import UserError
from medlord_bench.stats.arrays import LEVEL, Matrix, Vector


@dataclass(frozen=True, eq=False)
class Strengths:
    """log odds of being preferred to the reference, (K,), 0 for itself, with their Wald intervals.

    error: standard errors. covariance: (K, K), for differences of two.
    """

    value: Vector
    error: Vector
    low: Vector
    high: Vector
    covariance: Matrix


def bradley_terry(wins: ArrayLike, reference: int = 0) -> Strengths:
    """Maximum likelihood of P(i preferred to j) = 1 / (1 + exp(s_j - s_i)) (Bradley & Terry 1952).

    wins: (K, K), how often i was preferred to j. The estimate exists only if no group of contestants won all its choices
    against the others (Ford 1957). Raises `UserError` if one did, which says who, and for counts that are none.
    """
    from scipy.optimize import minimize
    from scipy.stats import norm

    table = np.asarray(wins, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or len(table) < 2 or (table < 0).any():
        raise UserError(
            f"bradley-terry: wins of shape {table.shape}, expected counts (K, K) of at least two contestants"
        )
    _connected(table)
    total = table + table.T
    free = np.delete(np.arange(len(table)), reference)

    def loss(part: Vector) -> tuple[float, Vector]:
        strength = np.zeros(len(table))
        strength[free] = part
        apart = np.subtract.outer(strength, strength)
        expected = total / (1 + np.exp(-apart))
        return float((table * np.logaddexp(0, -apart)).sum()), -(table - expected).sum(1)[free]

    found = minimize(loss, np.zeros(len(free)), jac=True, method="BFGS", options={"gtol": 1e-8})
    value = np.zeros(len(table))
    value[free] = found.x
    chance = 1 / (1 + np.exp(-np.subtract.outer(value, value)))
    weight = total * chance * (1 - chance)
    information = np.diag(weight.sum(1)) - weight
    covariance = np.zeros_like(table)
    covariance[np.ix_(free, free)] = np.linalg.inv(information[np.ix_(free, free)])
    error = np.sqrt(covariance.diagonal())
    reach = float(norm.ppf(0.5 + LEVEL / 2)) * error
    return Strengths(value, error, value - reach, value + reach, covariance)


def _connected(table: Matrix) -> None:
    """Raise `UserError` unless every contestant can be reached from every other by wins."""
    from scipy.sparse.csgraph import connected_components

    count, group = connected_components(table > 0, connection="strong")
    if count > 1:
        ahead = [np.flatnonzero(group == one).tolist() for one in range(count)]
        groups = " and ".join(str(part) for part in ahead[:3])
        raise UserError(
            f"bradley-terry: contestants {groups} are separated: one side won every choice against the other, or they "
            "were never compared; more choices are needed"
        )
