"""Distances, intervals and tests. All in float64, resampled by volume or patient."""

from medlord_bench.stats.agreement import Difference, krippendorff_alpha, over_cases, weighted_kappa
from medlord_bench.stats.arrays import LEVEL, Matrix, Vector
from medlord_bench.stats.bradley_terry import Strengths, bradley_terry
from medlord_bench.stats.choices import Accuracy, Rate, accuracy, rate, strengths
from medlord_bench.stats.detection import Area, Sensitivity, area, d_prime, sensitivity
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
from medlord_bench.stats.joint import Joint, joint
from medlord_bench.stats.kernel import gaussian_kernel, kernel_distance, mean_kernel
from medlord_bench.stats.ordinal import Effects, cumulative_logit
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
from medlord_bench.stats.rank_sum import Dominance, Separation, dominance, separation
from medlord_bench.stats.scaled_frechet import (
    in_reference_units,
    largest_shifts,
    scaled_frechet,
    scaled_frechet_jackknife,
    scaled_frechet_p,
)
from medlord_bench.stats.shift import Shift, shift
from medlord_bench.stats.tails import Tails, tails
from medlord_bench.stats.two_sample_statistics import TwoSample, two_sample

__all__ = [
    "Accuracy",
    "Area",
    "Difference",
    "Dominance",
    "Effects",
    "FrechetInfinity",
    "FrechetJackknife",
    "Gaussian",
    "Jackknife",
    "Joint",
    "KolmogorovSmirnov",
    "LEVEL",
    "Matrix",
    "MedianInterval",
    "PairedDifference",
    "Prdc",
    "Rate",
    "Sensitivity",
    "Separation",
    "Shift",
    "Strengths",
    "Tails",
    "Tost",
    "TwoSample",
    "Vector",
    "Wilcoxon",
    "accuracy",
    "area",
    "bradley_terry",
    "cumulative_logit",
    "d_prime",
    "detectable_difference",
    "dominance",
    "energy_distance",
    "expected_coverage",
    "frechet_distance",
    "frechet_infinity",
    "frechet_jackknife",
    "frechet_jackknife_to",
    "frechet_to",
    "gaussian_kernel",
    "holm",
    "in_reference_units",
    "jackknife",
    "joint",
    "kernel_distance",
    "krippendorff_alpha",
    "ks",
    "largest_shifts",
    "mean_kernel",
    "median_interval",
    "more_often",
    "n_needed",
    "over_cases",
    "paired_jackknife",
    "prdc",
    "rate",
    "scaled_frechet",
    "scaled_frechet_jackknife",
    "scaled_frechet_p",
    "sensitivity",
    "separation",
    "shift",
    "strengths",
    "tails",
    "tost",
    "two_sample",
    "variance_ratio",
    "wasserstein1",
    "weighted_kappa",
    "wilcoxon_paired",
    "wilson",
]
