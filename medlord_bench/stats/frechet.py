"""The Fréchet distance in float64, without a matrix square root.

tr (S1 S2)^(1/2) is the sum of the singular values of A B^T where S1 = A^T A and S2 = B^T B, or the sum of the square
roots of the eigenvalues of a symmetric matrix.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from medlord_bench.stats.arrays import EPS, Matrix, Rows, Vector, same_features


def _centred(rows: Matrix) -> Matrix:
    """A with A^T A = covariance (n - 1 in the denominator)."""
    factor: Matrix = (rows - rows.mean(0)) / np.sqrt(len(rows) - 1)
    return factor


def _roots(symmetric: Matrix) -> float:
    """The sum of the square roots of the eigenvalues of a positive semidefinite matrix."""
    return _root_sum(np.linalg.eigvalsh(symmetric))


def _root_sum(values: Rows) -> float:
    """The sum of the square roots of eigenvalues; rounding noise counts as 0."""
    noise = values.max(initial=0.0) * len(values) * EPS
    return float(np.sqrt(values[values > noise]).sum())


def _factor(covariance: Matrix) -> Matrix:
    """L (d, r) with L L^T = covariance: its Cholesky factor, or from its eigenvectors if it is singular."""
    try:
        return np.linalg.cholesky(covariance).astype(np.float64, copy=False)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariance)
        kept = values > values.max(initial=0.0) * len(values) * EPS
        factor: Matrix = vectors[:, kept] * np.sqrt(values[kept])
        return factor


def frechet_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Squared Fréchet distance between Gaussians fitted to two sets of features (n, d) and (m, d).

    Dowson & Landau 1982; Heusel et al. 2017 (arXiv 1706.08500), eq. 6. With min(n, m) < d the nuclear norm of A B^T
    (n, m) is used: it is exact for singular covariances, unlike the dense forms. Raises `UserError`
    if a set has fewer than two rows, is not finite, or the dimensions differ.
    """
    first, second = same_features(x, y)
    a, b = _centred(first), _centred(second)
    if min(len(a), len(b)) >= a.shape[1]:
        return _frechet(first.mean(0), a.T @ a, second.mean(0), b.T @ b)
    singular = np.linalg.svd(a @ b.T, compute_uv=False)
    apart = ((first.mean(0) - second.mean(0)) ** 2).sum()
    return float(max(apart + (a**2).sum() + (b**2).sum() - 2 * singular.sum(), 0.0))


def _frechet(mean1: Vector, covariance1: Matrix, mean2: Vector, covariance2: Matrix) -> float:
    cross = _roots_of_product(covariance2, covariance1)
    apart = ((mean1 - mean2) ** 2).sum()
    return float(max(apart + np.trace(covariance1) + np.trace(covariance2) - 2 * cross, 0.0))


def _roots_of_product(covariance1: Matrix, covariance2: Matrix) -> float:
    """tr (S1 S2)^(1/2). The symmetric-definite problem S1 S2 v = w v costs less than a factorisation and two
    products."""
    from scipy.linalg import LinAlgError, eigh

    try:
        values: Vector = eigh(  # type: ignore[call-overload]  # scipy-stubs lack the drivers of this problem
            covariance1, covariance2, eigvals_only=True, type=2, driver="gv", check_finite=False
        )
        return _root_sum(values)
    except LinAlgError:  # S2 is singular
        factor = _factor(covariance2)
        return _roots(factor.T @ covariance1 @ factor)
