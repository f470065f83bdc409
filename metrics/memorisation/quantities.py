"""The numbers that the memorisation audit gives."""

from __future__ import annotations

from medlord_bench.contracts.metrics import Headline, Quantity

QUANTITIES = (
    Quantity(
        name="copy_rate",
        meaning="Share of samples nearer to one training patient than unseen patients are: copies. Its floor is the share of unseen real volumes that the same threshold calls copies.",
        better="lower",
        headline=(Headline(rank=20),),
        pairs="copy_pair",
        interval="Clopper-Pearson",
        watches="copies of training patients",
    ),
    Quantity(
        name="memorised_share",
        meaning="Share of training patients that have a copy among the samples; more samples find more.",
        better="lower",
    ),
    Quantity(
        name="nearest_correlation",
        meaning="How like its nearest training volume a sample is, once registered; unseen real volumes beside.",
    ),
)

BY_NAME = {one.name: one for one in QUANTITIES}
