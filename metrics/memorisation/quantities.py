"""The quantities of the memorisation audit."""

from __future__ import annotations

from medlord_bench.contracts.metrics import Headline, Quantity

QUANTITIES = (
    Quantity(
        name="copy_rate",
        criterion="compliance",
        title="Copy rate",
        decimals=3,
        meaning="Fraction of samples that are closer to one training patient, as a whole or in parts, than unseen patients are: copies. Floor: the fraction of unseen real volumes below the same threshold.",
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
    Quantity(
        name="dar_copy_rate",
        criterion="compliance",
        title="Copy rate (Dar)",
        decimals=3,
        meaning="Fraction of samples whose correlation with a training volume is above the 95th percentile of the correlations of training volumes with their nearest validation volume (Dar et al. 2025). Floor: the fraction of test volumes above it.",
        better="lower",
    ),
    Quantity(
        name="dar_memorised_share",
        criterion="compliance",
        title="Memorised share (Dar)",
        decimals=3,
        meaning="Fraction of training volumes with a sample above the threshold of dar_copy_rate; it grows with the number of samples.",
        better="lower",
    ),
    Quantity(
        name="mask_copy_rate",
        criterion="compliance",
        title="Copy rate (masks)",
        decimals=3,
        meaning="Fraction of the samples of training masks that correlate more with the mask's patient than samples of test masks do with theirs: more than the mask explains. Floor: the nominal rate.",
        better="lower",
        headline=(Headline(rank=21),),
        watches="copies of training patients in samples of their masks",
    ),
    Quantity(
        name="mask_correlation",
        title="Mask correlation",
        spread="iqr",
        decimals=3,
        meaning="Correlation of a sample of a training mask with the mask's patient after registration; floor: samples of test masks with the test patients.",
    ),
)
RULES_QUANTITIES = {
    "conformal": tuple(one.name for one in QUANTITIES[:3]),
    "dar": tuple(one.name for one in QUANTITIES[3:5]),
    "masks": tuple(one.name for one in QUANTITIES[5:]),
}
