"""The quantities of whole volumes."""

from __future__ import annotations

from medlord_bench.contracts.metrics import Headline, Quantity

QUANTITIES = (
    Quantity(
        name="kid3d",
        criterion="congruence",
        title="KID of volumes",
        meaning="Unbiased kernel distance of one 3D feature vector for each volume: about 0 for equal sets at any n, with a p-value against that.",
        better="lower",
        headline=(Headline(rank=14, reference="test"),),
        interval="delete-one jackknife by volume and patient",
    ),
    Quantity(
        name="fid3d",
        criterion="congruence",
        title="FID of volumes",
        decimals=3,
        meaning="Squared Fréchet distance of one 3D feature vector for each volume; mostly bias while there are fewer volumes than features: read it beside its floor.",
        better="lower",
        interval="delete-one jackknife by volume and patient",
    ),
    Quantity(
        name="mmd3d",
        title="MMD of volumes",
        meaning="Unbiased squared maximum mean discrepancy of the same vectors with Gaussian kernels: about 0 for equal sets.",
        better="lower",
        interval="delete-one jackknife by volume and patient",
    ),
    Quantity(
        name="precision3d",
        criterion="congruence",
        title="Precision of volumes",
        decimals=2,
        meaning="Fraction of samples close to real volumes in 3D features: realism.",
        better="higher",
        interval="Wilson",
    ),
    Quantity(
        name="recall3d",
        criterion="coverage",
        title="Recall of volumes",
        decimals=2,
        meaning="Fraction of real volumes close to samples in 3D features: variety.",
        better="higher",
        interval="Wilson",
    ),
    Quantity(
        name="density3d",
        criterion="congruence",
        title="Density of volumes",
        decimals=2,
        meaning="Mean number of real neighbourhoods around a sample in 3D features, about 1 for equal sets.",
        better="higher",
    ),
    Quantity(
        name="coverage3d",
        criterion="coverage",
        title="Coverage of volumes",
        decimals=2,
        meaning="Fraction of real volumes with a sample in their neighbourhood in 3D features: variety.",
        better="higher",
    ),
)
