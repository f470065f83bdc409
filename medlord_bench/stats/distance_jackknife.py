"""The Fréchet distance with each volume or patient left out, without full recomputation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medlord_bench.errors import UserError
from medlord_bench.stats.arrays import EPS, Matrix, Vector, finite_rows, same_features
from medlord_bench.stats.frechet import Gaussian, _factor, _roots, checked_width, frechet_distance, frechet_to


@dataclass(frozen=True, eq=False)
class FrechetJackknife:
    """A Fréchet distance, and its values with each group of the first set, then of the second, left out."""

    value: float
    without_x: Vector
    without_y: Vector


def frechet_jackknife(x: Sequence[ArrayLike], y: Sequence[ArrayLike]) -> FrechetJackknife:
    """The distance between two sets given as groups (volumes, or the volumes of a patient), each (slices, d).

    Groups are left out whole, since the slices of a volume are not independent. Raises `UserError` as
    `frechet_distance` does, and if a set has fewer than two groups.
    """
    for name, groups in (("first set", x), ("second set", y)):
        _enough(name, groups)
    first, second = same_features(np.concatenate(x), np.concatenate(y))
    return FrechetJackknife(
        frechet_distance(first, second),
        _frechet_without_each(first, _sizes(x), Gaussian.of(second)),
        _frechet_without_each(second, _sizes(y), Gaussian.of(first)),
    )


def frechet_jackknife_to(x: Sequence[ArrayLike], reference: Gaussian) -> FrechetJackknife:
    """`frechet_jackknife` against a set of which only the Gaussian is known: `without_y` is empty."""
    _enough("the samples", x)
    rows = finite_rows(np.concatenate(x), "the samples")
    without = _frechet_without_each(rows, _sizes(x), checked_width(rows, reference))
    return FrechetJackknife(frechet_to(rows, reference), without, np.empty(0))


def _enough(name: str, groups: Sequence[ArrayLike]) -> None:
    if len(groups) < 2:
        raise UserError(f"{name}: {len(groups)} volumes or patients, expected at least 2 to leave one out: give more")


def _sizes(groups: Sequence[ArrayLike]) -> list[int]:
    return [len(np.asarray(group)) for group in groups]


def _frechet_without_each(rows: Matrix, sizes: Sequence[int], other: Gaussian) -> Vector:
    """The distance of `rows` to `other` without each run of `sizes` rows in turn.

    With L L^T the covariance of `other`, tr (S S_other)^(1/2) is the root sum of L^T S L. Leaving a group out subtracts
    V^T V from its scatter matrix, V being the group's centred rows and its weighted offset from the mean.
    """
    total, other_mean = len(rows), other.mean
    mean = rows.mean(0)
    centred = rows - mean
    half = other.factor
    projected = _compressed(centred @ (half.T if len(half) <= half.shape[1] else _factor(half.T @ half)))
    roots = _DowndatedRoots(projected.T @ projected)
    spread, other_spread = (centred**2).sum(), (half**2).sum()
    result, start = [], 0
    for size in sizes:
        part = slice(start, start + size)
        left, start = total - size, start + size
        offset, weight = centred[part].mean(0), size * total / left
        removed = np.vstack([projected[part] - projected[part].mean(0), np.sqrt(weight) * projected[part].mean(0)])
        cross = roots.without(removed) / np.sqrt(left - 1)
        trace = (spread - ((centred[part] - offset) ** 2).sum() - weight * (offset**2).sum()) / (left - 1)
        apart = ((mean - offset * size / left - other_mean) ** 2).sum()
        result.append(max(apart + trace + other_spread - 2 * cross, 0.0))
    return np.array(result)


def _compressed(rows: Matrix) -> Matrix:
    """The same rows in their own span if there are fewer rows than columns: an n x n Gram matrix, not d x d."""
    if len(rows) >= rows.shape[1]:
        return rows
    left, singular, _ = np.linalg.svd(rows, full_matrices=False)
    compressed: Matrix = left * singular
    return compressed


class _DowndatedRoots:
    """Root sums (see `_roots`) of S - V^T V for one S (r, r) and many V (k, r).

    For k well below r the change is an integral over k x k determinants, exact to about 1e-8 of the largest root:
    sum sqrt(eig(S)) - sum sqrt(eig(S - V^T V)) = -(1/pi) int_0^inf log det(I - V (S + u^2)^-1 V^T) du,
    from int_0^inf log((a^2 + u^2) / (b^2 + u^2)) du = pi (a - b). With u = exp(s) the trapezoidal rule converges
    like exp(-pi^2 / step). Otherwise the eigenvalues are recomputed.
    """

    STEP, REACH = 0.4, 24.0  # in s, about the largest root: truncation below 1e-10 of it
    WORTH = 12  # measured: from k = r / 12 on, eigenvalues are as fast

    def __init__(self, matrix: Matrix) -> None:
        self.matrix = matrix
        self.values, self.vectors = np.linalg.eigh(matrix)
        self.values = np.maximum(self.values, 0.0)
        self.largest = float(self.values.max(initial=0.0))
        kept = self.values > self.largest * len(matrix) * EPS
        self.base = float(np.sqrt(self.values[kept]).sum())

    def without(self, removed: Matrix) -> float:
        count, rank = removed.shape
        if count * self.WORTH > rank or not self.largest > 0:
            return _roots(self.matrix - removed.T @ removed)
        turned = removed @ self.vectors
        above = np.triu_indices(count)
        u = np.sqrt(self.largest) * np.exp(np.arange(-self.REACH, self.REACH + self.STEP, self.STEP))
        resolvents = 1.0 / (self.values[:, None] + u**2)
        inner = np.empty((len(u), count, count))
        inner[:, above[0], above[1]] = ((turned[above[0]] * turned[above[1]]) @ resolvents).T
        inner[:, above[1], above[0]] = inner[:, above[0], above[1]]
        _, logs = np.linalg.slogdet(np.eye(count) - inner)
        # If the group alone spans a direction the determinant reaches 0 at u = 0, with a vanishing contribution.
        logs = np.minimum(np.nan_to_num(logs, neginf=-40.0 * count), 0.0)
        return self.base + float((logs * u).sum()) * self.STEP / np.pi
