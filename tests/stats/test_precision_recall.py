"""Precision, recall, density and coverage against loops, sklearn's neighbours and their expectation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from medlord_bench import stats
from medlord_bench.errors import UserError
from medlord_bench.stats import precision_recall

Rows = NDArray[np.float64]


def rows(n: int, seed: int, d: int = 4, shift: float = 0.0, scale: float = 1.0) -> Rows:
    return scale * np.random.default_rng(seed).standard_normal((n, d)) + shift


def brute(real: Rows, fake: Rows, k: int) -> tuple[float, float, float, float]:
    """The definitions, one pair at a time."""

    def reach(points: Rows) -> list[float]:
        return [sorted(((p - q) ** 2).sum() for j, q in enumerate(points) if j != i)[k - 1]
                for i, p in enumerate(points)]  # fmt: skip

    near, far = reach(real), reach(fake)
    in_real = np.array([[((f - r) ** 2).sum() <= near[i] for i, r in enumerate(real)] for f in fake])
    in_fake = np.array([[((r - f) ** 2).sum() <= far[j] for j, f in enumerate(fake)] for r in real])
    return in_real.any(1).mean(), in_fake.any(1).mean(), in_real.sum(1).mean() / k, in_real.any(0).mean()


@pytest.mark.parametrize("chunk", [512, 7])
def test_the_four_are_those_of_the_definitions(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_recall, "CHUNK", chunk)
    real, fake = rows(40, 0), rows(30, 1, shift=0.8, scale=0.7)
    for k in (1, 3, 5):
        found = stats.prdc(real, fake, k)
        assert (found.precision, found.recall, found.density, found.coverage) == pytest.approx(brute(real, fake, k))


def test_reach_is_the_distance_that_sklearn_finds() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors", reason="scikit-learn is not installed")

    real = rows(60, 2)
    distances, _ = neighbors.NearestNeighbors(n_neighbors=4).fit(real).kneighbors()
    np.testing.assert_allclose(np.sqrt(precision_recall._reach(real, 4)), distances[:, -1], rtol=1e-9)


def test_copies_of_duplicated_real_vectors_count_as_inside() -> None:
    real = np.repeat(rows(5, 3), 6, axis=0)  # every ball has radius zero
    found = stats.prdc(real, real[::6].repeat(4, axis=0), k=3)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)


def test_far_sets_share_nothing_and_a_collapsed_one_covers_little() -> None:
    far = stats.prdc(rows(30, 4), rows(30, 5, shift=100.0), 3)
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)
    collapsed = stats.prdc(rows(100, 6), rows(100, 7, scale=0.01), 5)
    assert collapsed.precision == 1
    assert collapsed.recall < 0.1
    assert collapsed.coverage < 0.3


def test_equal_distributions_have_density_one_and_the_expected_coverage() -> None:
    found = [stats.prdc(rows(40, seed, d=2), rows(25, 5000 + seed, d=2), 3) for seed in range(300)]
    densities, coverages = ([getattr(one, name) for one in found] for name in ("density", "coverage"))
    assert np.mean(densities) == pytest.approx(1, abs=4 * np.std(densities) / np.sqrt(300))
    expected = stats.expected_coverage(40, 25, 3)
    assert np.mean(coverages) == pytest.approx(expected, abs=4 * np.std(coverages) / np.sqrt(300))


@pytest.mark.parametrize("k", [0, 4])
def test_as_many_neighbours_as_vectors_are_refused(k: int) -> None:
    with pytest.raises(UserError, match=f"k = {k} of 4 real and 9 generated") as caught:
        stats.prdc(rows(4, 0), rows(9, 1), k)
    assert "\n" not in str(caught.value)
