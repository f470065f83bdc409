"""The Fréchet distance against other implementations, closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from medlord_bench import stats
from medlord_bench.errors import UserError
from medlord_bench.stats import distance_jackknife

Groups = list[NDArray[np.float64]]


def volumes(n: int, slices: int, d: int, seed: int, shift: float = 0.0) -> Groups:
    """`n` volumes of correlated slices with a decaying spectrum, as slice features are."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1, d + 1) ** -0.5
    return [(rng.standard_normal(d) + 0.6 * rng.standard_normal((slices, d)) + shift) * scale for _ in range(n)]


class Passthrough(nn.Module):
    num_features = 24

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).double()


def test_full_rank_distance_is_that_of_torchmetrics() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    x, y = np.concatenate(volumes(40, 5, 24, 0)), np.concatenate(volumes(50, 5, 24, 1, shift=0.3))
    reference = FrechetInceptionDistance(feature=Passthrough(), input_img_size=(24, 1, 1)).set_dtype(torch.float64)
    reference.update(torch.from_numpy(x)[:, :, None, None], real=True)
    reference.update(torch.from_numpy(y)[:, :, None, None], real=False)
    assert stats.frechet_distance(x, y) == pytest.approx(reference.compute().item(), rel=1e-6)


def test_full_rank_distance_is_that_of_torch_fidelity() -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    x, y = np.concatenate(volumes(40, 5, 24, 0)), np.concatenate(volumes(50, 5, 24, 1, shift=0.3))
    moments = [fid_features_to_statistics(torch.from_numpy(rows)) for rows in (x, y)]
    expected = fid_statistics_to_metric(*moments, verbose=False)["frechet_inception_distance"]
    assert stats.frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


def rows_of(mean: ArrayLike, covariance: ArrayLike) -> NDArray[np.float64]:
    """Rows (4 d, d) with exactly this mean and covariance."""
    d = len(np.asarray(mean))
    noise = np.random.default_rng(1).standard_normal((4 * d, d))
    white, _ = np.linalg.qr(noise - noise.mean(0))  # columns are orthonormal and sum to 0
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(mean) + np.sqrt(4 * d - 1) * white @ (vectors * np.sqrt(values.clip(0))).T


def test_distance_of_gaussians_on_the_same_axes_is_the_closed_form_of_any_dimension() -> None:
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.standard_normal((30, 30)))
    first, second, shift = rng.uniform(0, 2, 30), rng.uniform(0, 2, 30), rng.standard_normal(30)
    first[:5] = 0  # a singular covariance, which has no Cholesky factor
    expected = (shift**2).sum() + ((np.sqrt(first) - np.sqrt(second)) ** 2).sum()
    covariances = [axes * values @ axes.T for values in (first, second)]
    for one, other in (covariances, covariances[::-1]):
        found = stats.frechet_distance(rows_of(np.zeros(30), one), rows_of(shift, other))
        assert found == pytest.approx(expected, rel=1e-6)


def test_distance_of_two_gaussians_is_the_closed_form_of_two_dimensions() -> None:
    a, b = np.array([[2.0, 0.7], [0.7, 1.0]]), np.array([[0.5, -0.3], [-0.3, 3.0]])
    product = a @ b  # for 2 x 2: tr sqrt(P) = sqrt(tr P + 2 sqrt(det P))
    cross = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = 1.0 + 4.0 + np.trace(a) + np.trace(b) - 2 * cross
    assert stats.frechet_distance(rows_of([0, 0], a), rows_of([1, 2], b)) == pytest.approx(expected, rel=1e-12)


def test_few_rows_in_many_dimensions_agree_with_the_dense_form() -> None:
    x, y = np.concatenate(volumes(4, 3, 60, 2)), np.concatenate(volumes(6, 4, 60, 3, shift=0.2))
    # The dense form in the rows' own span, where it has full rank on the smaller side.
    basis, _ = np.linalg.qr(np.concatenate([x, y]).T)
    covariances = [np.cov(rows @ basis, rowvar=False) for rows in (x, y)]
    cross = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0)).sum()
    apart = ((x.mean(0) - y.mean(0)) ** 2).sum()
    dense = apart + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * cross
    assert stats.frechet_distance(x, y) == pytest.approx(dense, rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(8, 100), (60, 20)], ids=["fewer rows than dimensions", "full rank"])
def test_a_set_is_at_distance_zero_of_itself(n: int, d: int) -> None:
    x = np.concatenate(volumes(n, 3, d, 4))
    assert stats.frechet_distance(x, x) == pytest.approx(0, abs=1e-8 * (x**2).sum(1).mean())


@pytest.mark.parametrize("d", [10, 200])
def test_distance_grows_by_the_square_of_a_mean_shift(d: int) -> None:
    x = np.concatenate(volumes(20, 3, d, 5))
    shift = np.linspace(0, 1, d)
    for size in (0.1, 1.0, 3.0):
        assert stats.frechet_distance(x, x + size * shift) == pytest.approx(size**2 * (shift**2).sum(), rel=1e-6)


def test_constant_features_give_their_squared_distance_and_no_crash() -> None:
    assert stats.frechet_distance(np.zeros((5, 3)), np.ones((6, 3))) == pytest.approx(3)
    found = stats.frechet_jackknife([np.zeros((2, 3))] * 4, [np.ones((2, 3))] * 4)
    np.testing.assert_allclose([*found.without_x, *found.without_y], 3)


@pytest.mark.parametrize(
    ("n", "m", "slices", "d"),
    [(6, 5, 3, 40), (30, 20, 4, 50), (40, 30, 3, 20), (8, 30, 3, 200), (30, 35, 6, 180)],
    ids=["few rows", "both", "full rank", "one side few rows", "determinants"],
)
def test_leaving_out_a_volume_is_the_distance_computed_again_without_it(n: int, m: int, slices: int, d: int) -> None:
    x, y = volumes(n, slices, d, 6), volumes(m, slices, d, 7, shift=0.2)
    x[1] = x[1][:-1]  # volumes of unequal numbers of slices
    found = stats.frechet_jackknife(x, y)
    again_x = [stats.frechet_distance(np.concatenate(x[:i] + x[i + 1 :]), np.concatenate(y)) for i in range(n)]
    again_y = [stats.frechet_distance(np.concatenate(x), np.concatenate(y[:i] + y[i + 1 :])) for i in range(m)]
    np.testing.assert_allclose(found.without_x, again_x, atol=1e-7 * found.value, rtol=0)
    np.testing.assert_allclose(found.without_y, again_y, atol=1e-7 * found.value, rtol=0)


def test_the_determinant_form_is_used_and_equals_the_eigenvalues(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = volumes(30, 6, 180, 8), volumes(35, 6, 180, 9)
    fast = stats.frechet_jackknife(x, y)
    monkeypatch.setattr(distance_jackknife._DowndatedRoots, "WORTH", 10**9)
    exact = stats.frechet_jackknife(x, y)
    assert (fast.without_x != exact.without_x).any(), "both took the same path"
    np.testing.assert_allclose(fast.without_x, exact.without_x, rtol=1e-7)


def test_debiased_distance_of_equal_distributions_is_near_zero_where_the_plain_one_is_not() -> None:
    plain, debiased = [], []
    for repeat in range(30):
        found = stats.frechet_jackknife(volumes(40, 2, 8, 100 + repeat), volumes(40, 2, 8, 900 + repeat))
        estimate = stats.jackknife(found.value, found.without_x, found.without_y)
        plain.append(estimate.value)
        debiased.append(estimate.debiased)
    assert abs(np.mean(debiased)) < 0.25 * np.mean(plain)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: stats.frechet_distance(np.ones((1, 3)), np.ones((4, 3))), "at least two rows"),
        (lambda: stats.frechet_distance(np.ones((4, 3)), np.ones((4, 2))), "3 and 2 dimensions"),
        (lambda: stats.frechet_distance(np.full((4, 3), np.nan), np.ones((4, 3))), "NaN"),
        (lambda: stats.frechet_jackknife([np.ones((4, 3))], [np.ones((4, 3))] * 2), "at least 2 to leave one out"),
    ],
)
def test_bad_input_is_one_line_that_says_what_was_expected(call, expected: str) -> None:
    with pytest.raises(UserError, match=expected) as caught:
        call()
    assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------------- a set known by its Gaussian
CASES = {"few rows": (9, 10, 3, 48), "between": (9, 30, 3, 48), "full rank": (20, 40, 5, 24)}


@pytest.mark.parametrize("dead", [False, True], ids=["", "with constant features"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_distance_to_a_stored_gaussian_is_that_to_its_rows(case: tuple[int, int, int, int], dead: bool) -> None:
    n, m, slices, d = case
    x, y = volumes(n, slices, d, 0), volumes(m, slices, d, 1, shift=0.3)
    if dead:
        for rows in (*x, *y):
            rows[:, ::5] = 0.0
    stored = stats.Gaussian.of(np.concatenate(y)).reduced()
    expected = stats.frechet_jackknife(x, y)
    found = stats.frechet_jackknife_to(x, stored)
    assert found.value == stats.frechet_to(np.concatenate(x), stored) == pytest.approx(expected.value, rel=1e-9)
    np.testing.assert_allclose(found.without_x, expected.without_x, rtol=1e-7)
    assert not len(found.without_y)


@pytest.mark.parametrize("d", [6, 40])
def test_a_stored_gaussian_is_a_function_of_the_covariance_and_has_no_row_of_the_features(d: int) -> None:
    """Any other rows of the same mean and covariance give the same factor."""
    rows = np.concatenate(volumes(6, 3, d, 0))
    rows[:, 0] = 1.0  # constant: the triangular factor of a QR decomposition would contain the first row
    turn, _ = np.linalg.qr(np.random.default_rng(5).standard_normal((len(rows), len(rows))))
    fitted = stats.Gaussian.of(rows)
    stored, other = fitted.reduced(), stats.Gaussian(fitted.mean, turn @ fitted.factor).reduced()
    np.testing.assert_allclose(stored.factor, other.factor, atol=1e-12)
    np.testing.assert_allclose(stored.factor.T @ stored.factor, np.cov(rows.T), atol=1e-12)
    assert stored.factor.shape == (min(len(rows), d), d)
    for row in fitted.factor:
        assert np.abs(stored.factor - row).max(1).min() > 1e-3 * np.abs(row).max()


def test_features_of_another_extractor_are_one_line() -> None:
    stored = stats.Gaussian.of(np.eye(4)).reduced()
    with pytest.raises(UserError, match=r"features of 3 dimensions, those of the reference have 4"):
        stats.frechet_to(np.eye(3), stored)
