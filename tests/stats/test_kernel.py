"""The kernel distance against torchmetrics, brute force and all permutations."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medlord_bench import stats
from medlord_bench.errors import UserError
from medlord_bench.stats import kernel

Groups = list[NDArray[np.float64]]


def volumes(sizes: list[int], seed: int, d: int = 6, shift: float = 0.0, own: float = 1.0) -> Groups:
    """One volume for each number of slices; `own` is what a volume's slices have in common."""
    rng = np.random.default_rng(seed)
    return [own * rng.standard_normal(d) + rng.standard_normal((size, d)) + shift for size in sizes]


def block(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.mean([[(p @ q / len(p) + 1) ** 3 for q in b] for p in a]))


def brute(x: Groups, y: Groups) -> float:
    within_x = np.mean([block(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    within_y = np.mean([block(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    return float(within_x + within_y - 2 * np.mean([block(a, b) for a in x for b in y]))


def test_one_slice_a_volume_is_the_kernel_distance_of_torchmetrics() -> None:
    from torchmetrics.image.kid import poly_mmd

    x, y = volumes([1] * 20, 0), volumes([1] * 20, 1, shift=0.5)
    expected = poly_mmd(torch.from_numpy(np.concatenate(x)), torch.from_numpy(np.concatenate(y)))
    assert stats.kernel_distance(x, y, 0, 10).value == pytest.approx(expected.item(), rel=1e-10)


@pytest.mark.parametrize("chunk", [2048, 5, 3], ids=["one chunk", "chunks cut volumes", "volumes larger than a chunk"])
def test_value_and_what_leaving_out_does_are_those_of_loops_over_pairs(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "CHUNK", chunk)
    x, y = volumes([2, 4, 1, 3], 2), volumes([3, 1, 2, 5, 2], 3, shift=0.4)
    found = stats.kernel_distance(x, y, 0, 10)
    assert found.value == pytest.approx(brute(x, y), rel=1e-10)
    np.testing.assert_allclose(found.without_x, [brute(x[:i] + x[i + 1 :], y) for i in range(4)], rtol=1e-9)
    np.testing.assert_allclose(found.without_y, [brute(x, y[:i] + y[i + 1 :]) for i in range(5)], rtol=1e-9)
    estimate = stats.jackknife(found.value, found.without_x, found.without_y)
    assert (found.low, found.high, found.n_x, found.n_y) == (estimate.low, estimate.high, 4, 5)
    assert estimate.debiased == pytest.approx(found.value, abs=1e-9), "an unbiased statistic has no bias to take off"


def test_p_value_is_the_share_of_all_relabellings() -> None:
    x, y = volumes([2, 3, 2, 1], 4), volumes([1, 2, 2], 5, shift=1.0)
    pooled, seen = [*x, *y], brute(x, y)
    splits = [
        brute([pooled[i] for i in chosen], [pooled[i] for i in range(7) if i not in chosen])
        for chosen in combinations(range(7), 4)
    ]
    exact = np.mean(np.array(splits) >= seen - 1e-12)
    found = stats.kernel_distance(x, y, 0, 20_000)
    assert found.p == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000))
    assert stats.kernel_distance(x, y, 0, 20_000).p == found.p, "the same seed gave another p-value"


def test_the_least_p_value_is_that_of_the_number_of_permutations() -> None:
    found = stats.kernel_distance(volumes([2] * 12, 6), volumes([2] * 12, 7, shift=9.0), 0, permutations=99)
    assert found.p == 1 / 100


def test_slices_that_resemble_each_other_do_not_make_equal_distributions_look_apart() -> None:
    by_volume, by_slice = [], []
    for repeat in range(60):
        x, y = volumes([8] * 8, 100 + repeat, own=2.0), volumes([8] * 8, 900 + repeat, own=2.0)
        by_volume.append(stats.kernel_distance(x, y, 0, 1).value)
        slices = [[row[None] for group in groups for row in group] for groups in (x, y)]
        by_slice.append(stats.kernel_distance(*slices, 0, 1).value)
    error = np.std(by_volume) / np.sqrt(60)
    assert abs(np.mean(by_volume)) < 3 * error
    assert np.mean(by_slice) > 5 * error


def test_float32_features_give_the_same_value() -> None:
    x, y = volumes([5] * 6, 8), volumes([5] * 6, 9, shift=0.2)
    single = stats.kernel_distance([a.astype(np.float32) for a in x], [a.astype(np.float32) for a in y], 0, 10)
    assert single.value == pytest.approx(stats.kernel_distance(x, y, 0, 10).value, rel=1e-4)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (volumes([2, 2], 0), "first set: 2 volumes or patients, expected at least 3"),
        (volumes([2, 2, 2], 0, d=5), "5 and 6 dimensions"),
        ([np.full((2, 6), np.nan)] * 3, "finite"),
        ([np.ones((0, 6))] * 3, "(0, 6)"),
        ([np.ones(6)] * 3, "slices, d"),
    ],
)
def test_bad_input_is_one_line_that_says_what_was_expected(x: Groups, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        stats.kernel_distance(x, volumes([2, 2, 2], 1), 0)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
