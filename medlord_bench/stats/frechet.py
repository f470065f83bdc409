"""The Fréchet distance in float64, without a matrix square root.

tr (S1 S2)^(1/2) is the sum of the singular values of A B^T where S1 = A^T A and S2 = B^T B, or the sum of the square
roots of the eigenvalues of a symmetric matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medlord_bench.errors import UserError
from medlord_bench.stats.arrays import EPS, Matrix, Rows, Vector, finite_rows, same_features


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A Gaussian fitted to features. mean: (d,). factor: (r, d) with factor^T factor = covariance."""

    mean: Vector
    factor: Matrix

    @classmethod
    def of(cls, features: ArrayLike) -> Gaussian:
        """Raises `UserError` if there are fewer than two rows, or one is not finite."""
        rows = finite_rows(features, "features")
        return cls(rows.mean(0), _centred(rows))

    def reduced(self) -> Gaussian:
        """The same Gaussian with min(r, d) rows: eigenvectors of the covariance times the roots of their eigenvalues.

        They are a function of the covariance alone, up to the sign of a row, which is fixed here; the factor of a fit
        has the features themselves. (The triangular factor of a QR decomposition would not do: where a feature is
        constant, a row of the features comes through it unchanged.)
        """
        tall = len(self.factor) > self.factor.shape[1]
        rows = np.linalg.qr(self.factor, mode="r") if tall else self.factor
        _, singular, directions = np.linalg.svd(rows, full_matrices=False)
        noise = singular.max(initial=0.0) * max(self.factor.shape) * EPS
        places = np.abs(directions).argmax(1)
        signs = np.sign(directions[np.arange(len(directions)), places])
        scale = np.where(singular > noise, singular, 0.0) * signs
        return Gaussian(self.mean, scale[:, None] * directions)


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
    return _between(Gaussian.of(first), Gaussian.of(second))


def frechet_to(x: ArrayLike, reference: Gaussian) -> float:
    """`frechet_distance` of features to a set of which only the Gaussian is known."""
    return _between(Gaussian.of(x), checked_width(x, reference))


def checked_width(x: ArrayLike, reference: Gaussian) -> Gaussian:
    """The reference. Raises `UserError` if the features have another number of dimensions."""
    given, wanted = np.asarray(x).shape[-1], len(reference.mean)
    if given != wanted:
        raise UserError(
            f"features of {given} dimensions, those of the reference have {wanted}: extract them with its extractor"
        )
    return reference


def _between(one: Gaussian, other: Gaussian) -> float:
    a, b = one.factor, other.factor
    if min(len(a), len(b)) >= a.shape[1]:
        return _frechet(one.mean, a.T @ a, other.mean, b.T @ b)
    singular = np.linalg.svd(a @ b.T, compute_uv=False)
    apart = ((one.mean - other.mean) ** 2).sum()
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
