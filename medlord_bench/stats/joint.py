"""Many numbers per volume at once: one distance with one p-value, and a corrected p-value for each number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medlord_bench.errors import UserError
from medlord_bench.stats.arrays import Vector
from medlord_bench.stats.two_sample_statistics import LEAST_UNITS, permuted_values, subsets, two_sample
from medlord_bench.util.seeds import numpy_rng

BATCH = 512  # permutations at a time: bounded memory
RIDGE = 0.3  # of a column's variance, added to it in the covariance of the ranks: with as many columns as units it is singular


@dataclass(frozen=True, eq=False)
class Joint:
    """The distance of two sets of rows, one row per unit, with its jackknife interval, and tests by permutation.

    value: energy distance in standard deviations of the second set, the reference, or in what is passed as the least
    scale of a column, if that is larger; unbiased, so about 0 for equal sets.
    low, high, without_x, without_y: of the value, by the jackknife. p: that both sets come from one distribution.
    p_each: of each column, corrected over all columns; 1 where a column is constant or missing.
    """

    value: float
    low: float
    high: float
    p: float
    p_each: Vector
    without_x: Vector
    without_y: Vector


def joint(x: ArrayLike, y: ArrayLike, seed: int, permutations: int = 2000, least_scale: ArrayLike = 0.0) -> Joint:
    """Compares rows x (n, K) with rows y (m, K); NaN where a unit lacks a number.

    least_scale: of each column (K,), in its unit: a number that hardly varies does not decide the value alone.

    A missing number counts as the median of both sets together, so that it adds nothing. The test uses three
    statistics: the energy distance (Székely & Rizzo 2013), which sees many small changes and changes of spread; the
    largest rank-sum statistic of a column, which sees one changed number among many; and the ridge-regularised
    Hotelling distance of the ranks (Chen et al. 2011; Puri & Sen 1971, 5.3), which sees a small change of numbers that
    otherwise go together. p is of the smallest of their p-values, calibrated in the same permutations (Westfall & Young
    1993, 2.3), so it is exact. `p_each` is their single-step maxT
    over the columns' rank sums. Everything in the test is standardised over both sets together, which does not depend
    on the labels. Raises `UserError` below three rows a side, and if the numbers of columns differ.
    """
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or np.isinf(first).any():
        raise UserError(f"joint: rows of shapes {first.shape} and {second.shape}, expected (n, K) and (m, K), finite")
    n, m = len(first), len(second)
    if min(n, m) < LEAST_UNITS:
        raise UserError(f"joint: {n} and {m} units, expected at least {LEAST_UNITS} a side: give more")
    rows = filled(np.concatenate([first, second]))
    scale = np.maximum(rows[n:].std(0, ddof=1), least_scale)
    value = two_sample(_distances(rows[:, scale > 0] / scale[scale > 0]), n, seed, 0, "joint")
    varies = np.ptp(rows, axis=0) > 0
    p, p_each = 1.0, np.ones(rows.shape[1])
    if varies.any() and permutations:
        p, p_each[varies] = _tests(rows[:, varies], n, seed, permutations)
    return Joint(value.value, value.low, value.high, p, p_each, value.without_x, value.without_y)


def filled(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows with each missing number replaced by the median of its column; 0 in a column without any."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column without any number
        medians = np.nan_to_num(np.nanmedian(rows, axis=0))
    return np.where(np.isnan(rows), medians, rows)


def _distances(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.spatial.distance import cdist

    return -cdist(rows, rows)


def _tests(rows: NDArray[np.float64], n: int, seed: int, permutations: int) -> tuple[float, Vector]:
    """The joint p-value, and one corrected p-value for each column. The first row of labels is the observed one."""
    from scipy.stats import rankdata

    total = len(rows)
    ranks = rankdata(rows, axis=0) - (total + 1) / 2
    ranks /= ranks.std(0)
    matrix = _distances(rows / rows.std(0, ddof=1))
    np.fill_diagonal(matrix, 0.0)
    white = _whitened(ranks)
    rng = numpy_rng(seed, "joint", "permutations")
    energies, largest, hotelling = [], [], []
    observed = np.abs(ranks[:n].sum(0))
    for start in range(0, permutations + 1, BATCH):
        chosen = subsets(rng, min(BATCH, permutations + 1 - start), total, n)
        if start == 0:
            chosen[0] = np.arange(n)
        first = np.zeros((len(chosen), total))
        np.put_along_axis(first, chosen, 1.0, axis=1)
        energies.append(permuted_values(matrix, first))
        largest.append(np.abs(first @ ranks).max(1))
        hotelling.append(((first @ white) ** 2).sum(1))
    top = np.concatenate(largest)
    smallest = np.min([_p_values(np.concatenate(one)) for one in (energies, largest, hotelling)], axis=0)
    slack = 1e-9 * max(1.0, float(top.max()))
    p_each = (top[None, :] >= observed[:, None] - slack).mean(1)
    return float((smallest <= smallest[0]).mean()), p_each


def _whitened(ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred ranks (N, K) of unit variance, turned so that their regularised covariance is the identity.

    The covariance is of both sets together, which does not depend on the labels; with it Hotelling's statistic grows
    with the distance of the means as with the covariance within the sets.
    """
    values, vectors = np.linalg.eigh(ranks.T @ ranks / len(ranks))
    return np.asarray(ranks @ vectors / np.sqrt(values.clip(0) + RIDGE))


def _p_values(values: Vector) -> Vector:
    """Of each value, the fraction of all that are at least as large; equal up to rounding counts as equal."""
    ordered = np.sort(values)
    slack = 1e-9 * max(1.0, float(np.abs(values).max()))
    return np.asarray(1 - np.searchsorted(ordered, values - slack) / len(values))
