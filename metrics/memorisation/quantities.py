"""The quantities of the memorisation audit."""

from __future__ import annotations

from medlord_bench.contracts.metrics import Headline, Quantity

QUANTITIES = (
    Quantity(
        name="copy_rate",
        criterion="compliance",
        title="Copy rate",
        decimals=3,
        meaning="Fraction of samples closer to one training patient than unseen patients are: copies. Floor: the fraction of unseen real volumes below the same threshold.",
        better="lower",
        headline=(Headline(rank=20),),
        pairs="copy_pair",
        interval="Clopper-Pearson",
        watches="copies of training patients",
    ),
    Quantity(
        name="memorised_share",
        criterion="compliance",
        title="Memorised share",
        decimals=3,
        meaning="Fraction of training patients with a copy among the samples; it grows with the number of samples.",
        better="lower",
    ),
    Quantity(
        name="nearest_correlation",
        title="Nearest correlation",
        spread="iqr",
        decimals=3,
        meaning="Correlation of a sample with its nearest training volume after registration; floor: unseen real volumes.",
    ),
)

BY_NAME = {one.name: one for one in QUANTITIES}
