"""The distances, intervals and tests that numbers carry. Everything in float64, resampled by volume or patient."""

from medlord_bench.stats.arrays import LEVEL, Matrix, Vector
from medlord_bench.stats.frechet import frechet_distance, frechet_from_moments
from medlord_bench.stats.intervals import Jackknife, MedianInterval, jackknife, median_interval, wilson
from medlord_bench.stats.leaving_out import FrechetJackknife, frechet_jackknife

__all__ = [
    "LEVEL",
    "FrechetJackknife",
    "Jackknife",
    "Matrix",
    "MedianInterval",
    "Vector",
    "frechet_distance",
    "frechet_from_moments",
    "frechet_jackknife",
    "jackknife",
    "median_interval",
    "wilson",
]
