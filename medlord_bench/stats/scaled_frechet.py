"""The Fréchet distance of features in units of a reference set, as for radiomics: value, jackknife and permutation test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medlord_bench.errors import UserError
from medlord_bench.stats.arrays import Matrix, Vector, same_features
from medlord_bench.stats.distance_jackknife import FrechetJackknife
from medlord_bench.stats.frechet import frechet_distance
from medlord_bench.util.seeds import numpy_rng


def in_reference_units(x: ArrayLike, reference: ArrayLike) -> tuple[Matrix, Matrix]:
    """Both sets (n, d) and (m, d) in standard deviations of the reference about its mean; d falls to the columns that vary
    within the reference.

    Konz, Osuala et al. 2026 (arXiv 2412.01496), eq. 3; standard deviation with m in the denominator as in frd-score. A
    column that is constant in the reference has no unit. Raises `UserError` as `frechet_distance`, and if no column
    varies.
    """
    first, second = same_features(x, reference)
    varies = np.ptp(second, axis=0) > 0
    if not varies.any():
        raise UserError("reference: every feature is constant, expected features that vary: give more real volumes")
    mean, deviation = second[:, varies].mean(0), second[:, varies].std(0)
    return (first[:, varies] - mean) / deviation, (second[:, varies] - mean) / deviation


def scaled_frechet(x: ArrayLike, reference: ArrayLike) -> float:
    """Squared Fréchet distance of both sets in units of the reference; frd-score prints its logarithm."""
    return frechet_distance(*in_reference_units(x, reference))


def scaled_frechet_jackknife(x: Sequence[ArrayLike], reference: Sequence[ArrayLike]) -> FrechetJackknife:
    """`scaled_frechet` of sets given as groups (samples; the volumes of a patient), and without each group in turn.

    Without a group of the reference its units are those of the rest. Raises `UserError` below two groups a side.
    """
    for name, groups in (("first set", x), ("reference", reference)):
        if len(groups) < 2:
            raise UserError(f"{name}: {len(groups)} volumes or patients, expected at least 2: give more")
    rows, others = np.concatenate(x), np.concatenate(reference)
    without_x = [scaled_frechet(np.concatenate([*x[:i], *x[i + 1 :]]), others) for i in range(len(x))]
    without_y = [
        scaled_frechet(rows, np.concatenate([*reference[:i], *reference[i + 1 :]])) for i in range(len(reference))
    ]
    return FrechetJackknife(scaled_frechet(rows, others), np.array(without_x), np.array(without_y))


def scaled_frechet_p(x: ArrayLike, reference: ArrayLike, seed: int, permutations: int) -> float:
    """One-sided p-value that both sets come from one distribution, by relabelling rows; units are formed anew each time.

    (1 + count) / (1 + permutations), Phipson & Smyth 2010. Raises `UserError` as `scaled_frechet`.
    """
    first, second = same_features(x, reference)
    rows, n = np.concatenate([first, second]), len(first)
    rng = numpy_rng(seed, "scaled frechet", "permutations")
    observed = scaled_frechet(first, second)
    drawn = np.array([_relabelled(rows, rng.permutation(len(rows)), n) for _ in range(permutations)])
    # A relabelling that only repeats the observed split must count as equal: its sums are added in another order.
    count = int((drawn >= observed * (1 - 1e-9)).sum())
    return (1 + count) / (1 + permutations)


def _relabelled(rows: Matrix, order: NDArray[np.int64], n: int) -> float:
    """Of one relabelling; infinite where equal rows alone are drawn as the reference, which has no unit then."""
    x, reference = rows[order[:n]], rows[order[n:]]
    return scaled_frechet(x, reference) if np.ptp(reference, axis=0).any() else np.inf


def largest_shifts(x: ArrayLike, reference: ArrayLike, most: int) -> list[tuple[int, float]]:
    """The columns whose means differ most, in standard deviations of the reference: (column, difference), largest first."""
    first, second = same_features(x, reference)
    varies = np.flatnonzero(np.ptp(second, axis=0) > 0)
    shifts: Vector = in_reference_units(first, second)[0].mean(0)
    order = np.argsort(-np.abs(shifts), kind="stable")[:most]
    return [(int(varies[place]), float(shifts[place])) for place in order]
