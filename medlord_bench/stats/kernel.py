"""The kernel distance (KID) between sets of volumes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medlord_bench.stats.arrays import Matrix, Rows, finite_groups
from medlord_bench.stats.two_sample_statistics import LEAST_UNITS, TwoSample, two_sample

WIDTHS = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)  # of Gaussian kernels, times the median distance
TINY = 1e-12  # the median distance of equal rows
CHUNK = 2048  # rows at a time: the kernel of two chunks is 32 MiB


def kernel_distance(
    x_groups: Sequence[ArrayLike], y_groups: Sequence[ArrayLike], seed: int, permutations: int = 2000
) -> TwoSample:
    """The unbiased squared MMD with the kernel (x.y/d + 1)^3 (KID: Binkowski et al. 2018, arXiv 1801.01401) by volume.

    x_groups, y_groups: the volumes (or patients) of each set, (slices, d) each. The kernel is averaged over the slices
    of each pair of volumes, and only pairs of different volumes are used: slices of one volume resemble each other, and
    would otherwise make sets of few volumes appear different. All volumes have equal weight for any number of slices;
    with one slice per volume this is the usual KID of all rows. Interval and p-value are those of volumes
    (`two_sample`). Raises `UserError` below three volumes a side, or for features that are not finite or differ in d.
    """
    x, y = finite_groups(x_groups, y_groups, LEAST_UNITS)
    return two_sample(mean_kernel([*x, *y]), len(x), seed, permutations, "kernel distance")


def mean_kernel(groups: Sequence[Rows]) -> Matrix:
    """(groups, groups): the kernel averaged over all pairs of rows of two groups, (slices, d) each, checked elsewhere.

    Memory: the kernel of two chunks of rows, and the result.
    """
    rows = np.concatenate(groups)
    sizes = np.array([len(group) for group in groups])
    owner = np.repeat(np.arange(len(groups)), sizes)
    sums = np.zeros((len(groups), len(groups)))
    parts = [slice(start, start + CHUNK) for start in range(0, len(rows), CHUNK)]
    for i, first in enumerate(parts):
        left, starts = np.asarray(rows[first], dtype=np.float64), _starts(owner[first])
        for second in parts[i:]:
            right, ends = np.asarray(rows[second], dtype=np.float64), _starts(owner[second])
            kernel = (left @ right.T / rows.shape[1] + 1.0) ** 3
            block = np.add.reduceat(np.add.reduceat(kernel, starts, axis=0), ends, axis=1)
            one, other = owner[first][starts], owner[second][ends]
            sums[np.ix_(one, other)] += block
            if second is not first:
                sums[np.ix_(other, one)] += block.T
    means: Matrix = sums / np.outer(sizes, sizes)
    return means


def gaussian_kernel(rows: Rows, ratios: Sequence[float] = WIDTHS) -> Matrix:
    """(n, n): the mean of Gaussian kernels exp(-d^2 / (2 s^2)) of rows (n, d), one for each width s.

    s is a ratio times the median distance of two rows (the lower one of an even number), so that no width is chosen by
    hand (Gretton et al. 2012, section 8). `two_sample` of it is the unbiased squared MMD.
    """
    from scipy.spatial.distance import pdist, squareform

    apart = pdist(np.asarray(rows, dtype=np.float64))
    median = max(float(np.sort(apart)[(len(apart) - 1) // 2]), TINY)
    squared = squareform(apart) ** 2
    kernel: Matrix = np.mean([np.exp(-squared / (2 * (ratio * median) ** 2)) for ratio in ratios], axis=0)
    return kernel


def _starts(owner: NDArray[np.int64]) -> NDArray[np.intp]:
    """The index at which each group begins among sorted owners."""
    return np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]])
