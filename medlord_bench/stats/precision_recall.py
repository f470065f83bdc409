"""Mutual coverage of two sets of vectors, by balls around each vector up to its k-th neighbour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medlord_bench.errors import UserError
from medlord_bench.stats.arrays import Matrix, Vector, same_features

CHUNK = 512  # rows whose distances to a whole set are in memory at once


@dataclass(frozen=True)
class Prdc:
    """Precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991), density and coverage (Naeem et al. 2020,
    2002.09797).

    For sets of one distribution precision and recall are below 1 by an amount that depends on n and d; density is 1 in
    expectation (and may exceed 1); coverage is `expected_coverage`.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: ArrayLike, fake: ArrayLike, k: int) -> Prdc:
    """The four fractions, from one vector per volume: real (n, d) and fake (m, d).

    The ball of a vector extends to its k-th nearest neighbour in its own set, excluding itself, and includes its border
    (<=, as in Kynkäänniemi et al.): a fake that equals k + 1 duplicated real vectors is in their ball of radius zero.
    The `prdc` package uses < and treats such a fake as outside. Distances are computed directly, not through a
    product, so that duplicates have a distance of exactly zero. Raises `UserError` unless both sets have more than k
    vectors.
    """
    real_rows, fake_rows = same_features(real, fake)
    if not 1 <= k < min(len(real_rows), len(fake_rows)):
        raise UserError(
            f"precision and recall: k = {k} of {len(real_rows)} real and {len(fake_rows)} generated vectors, expected at "
            "least one neighbour and more vectors than neighbours: give more or lower k"
        )
    real_reach, fake_reach = _reach(real_rows, k), _reach(fake_rows, k)
    inside = np.zeros(len(fake_rows))  # number of real balls that contain each fake
    recalled, covered = [], []
    for start in range(0, len(real_rows), CHUNK):
        part = slice(start, start + CHUNK)
        distances = _distances(real_rows[part], fake_rows)
        held = distances <= real_reach[part, None]
        inside += held.sum(0)
        covered.append(held.any(1))
        recalled.append((distances <= fake_reach).any(1))
    return Prdc(
        precision=float((inside > 0).mean()),
        recall=float(np.concatenate(recalled).mean()),
        density=float(inside.mean() / k),
        coverage=float(np.concatenate(covered).mean()),
    )


def expected_coverage(n: int, m: int, k: int) -> float:
    """Coverage of n real by m fake vectors of the same distribution (Naeem et al. 2020, lemma 2).

    1 - (n - 1)...(n - k) / ((n + m - 1)...(n + m - k)): the reference value of a coverage.
    """
    below = np.arange(1, k + 1)
    return float(1 - np.prod((n - below) / (n + m - below)))


def _reach(rows: Matrix, k: int) -> Vector:
    """Squared distance of each row to its k-th nearest other row."""
    found = []
    for start in range(0, len(rows), CHUNK):
        distances = _distances(rows[start : start + CHUNK], rows)
        distances[np.arange(len(distances)), np.arange(start, start + len(distances))] = -1.0  # itself comes first
        found.append(np.partition(distances, k, axis=1)[:, k])
    return np.concatenate(found)


def _distances(a: Matrix, b: Matrix) -> Matrix:
    from scipy.spatial.distance import cdist

    return cdist(a, b, "sqeuclidean")
