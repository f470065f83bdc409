"""The quantities of the FID family."""

from __future__ import annotations

from medlord_bench.contracts.metrics import Headline, Quantity

QUANTITIES = (
    Quantity(
        name="fid",
        title="FID",
        decimals=2,
        meaning="Squared Fréchet distance between slice features of samples and real volumes: realism and variety in one number.",
        better="lower",
        headline=(
            Headline(rank=10, reference="test"),
            Headline(rank=11, reference="train"),
        ),
        caution="FID is given against test and against training volumes: a low distance to the training set alone rewards copying.",
        read_with="copy_rate",
        interval="delete-one jackknife by volume and patient",
    ),
    Quantity(
        name="fid_debiased",
        title="Debiased FID",
        table="fid_details",
        decimals=2,
        folded="with the estimated bias subtracted",
        meaning="The same distance minus its estimated small-sample bias; about 0 for equal sets.",
        better="lower",
        interval="delete-one jackknife by volume and patient",
    ),
    Quantity(
        name="kid",
        title="KID",
        meaning="Unbiased kernel distance on the same features: about 0 for equal sets at any n, with a p-value against that.",
        better="lower",
        headline=(Headline(rank=30, reference="test"),),
        interval="delete-one jackknife by volume and patient",
    ),
    Quantity(
        name="fid_infinity",
        title="FID at infinite n",
        table="fid_details",
        decimals=2,
        meaning="The same distance extrapolated to infinitely many volumes.",
        better="lower",
    ),
    Quantity(
        name="precision",
        title="Precision",
        table="precision_recall",
        decimals=2,
        meaning="Fraction of samples close to real volumes: realism.",
        better="higher",
        headline=(Headline(rank=40, reference="test"),),
        interval="Wilson",
    ),
    Quantity(
        name="recall",
        title="Recall",
        table="precision_recall",
        decimals=2,
        meaning="Fraction of real volumes close to samples: variety.",
        better="higher",
        headline=(Headline(rank=41, reference="test"),),
        interval="Wilson",
    ),
    Quantity(
        name="density",
        title="Density",
        table="precision_recall",
        decimals=2,
        meaning="Mean number of real neighbourhoods around a sample, about 1 for equal sets: realism, robust to outliers.",
        better="higher",
    ),
    Quantity(
        name="coverage",
        title="Coverage",
        table="precision_recall",
        decimals=2,
        meaning="Fraction of real volumes with a sample in their neighbourhood: variety, robust to outliers.",
        better="higher",
    ),
)
