"""Distances, intervals and tests. All in float64, resampled by volume or patient."""

from medlord_bench.stats.arrays import LEVEL, Matrix, Vector
from medlord_bench.stats.distance_jackknife import FrechetJackknife, frechet_jackknife, frechet_jackknife_to
from medlord_bench.stats.distributions import (
    KolmogorovSmirnov,
    energy_distance,
    ks,
    variance_ratio,
    wasserstein1,
)
from medlord_bench.stats.extrapolation import FrechetInfinity, frechet_infinity
from medlord_bench.stats.frechet import Gaussian, frechet_distance, frechet_to
from medlord_bench.stats.intervals import Jackknife, MedianInterval, jackknife, median_interval, more_often, wilson
from medlord_bench.stats.kernel import gaussian_kernel, kernel_distance, mean_kernel
from medlord_bench.stats.paired import (
    PairedDifference,
    Tost,
    Wilcoxon,
    detectable_difference,
    holm,
    n_needed,
    paired_jackknife,
    tost,
    wilcoxon_paired,
)
from medlord_bench.stats.precision_recall import Prdc, expected_coverage, prdc
from medlord_bench.stats.two_sample_statistics import TwoSample, two_sample

__all__ = [
    "LEVEL",
    "FrechetInfinity",
    "FrechetJackknife",
    "Gaussian",
    "Jackknife",
    "KolmogorovSmirnov",
    "Matrix",
    "MedianInterval",
    "PairedDifference",
    "Prdc",
    "Tost",
    "TwoSample",
    "Vector",
    "Wilcoxon",
    "detectable_difference",
    "energy_distance",
    "expected_coverage",
    "frechet_distance",
    "frechet_infinity",
    "frechet_jackknife",
    "frechet_jackknife_to",
    "frechet_to",
    "gaussian_kernel",
    "holm",
    "jackknife",
    "kernel_distance",
    "ks",
    "mean_kernel",
    "median_interval",
    "n_needed",
    "paired_jackknife",
    "prdc",
    "tost",
    "two_sample",
    "variance_ratio",
    "wasserstein1",
    "wilcoxon_paired",
    "more_often",
    "wilson",
]
