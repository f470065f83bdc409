"""The quantities of the regional volume ratios."""

from __future__ import annotations

from medlord_bench.contracts.metrics import Headline, Quantity

QUANTITIES = (
    Quantity(
        name="rvr",
        title="RVR",
        spread="iqr",
        open_by_region=True,
        distribution="region / all voxels",
        meaning="Voxels of a region over all voxels, median of the samples: should equal that of real volumes.",
    ),
    Quantity(
        name="rvr_ml",
        title="Volume",
        spread="iqr",
        meaning="Volume of a region in mL, median of the samples: should equal that of real volumes.",
        unit="mL",
    ),
    Quantity(
        name="rvr_missing",
        criterion="completeness",
        title="Share of samples that lack the region",
        decimals=2,
        meaning="Fraction of samples that lack a region, or have less than half of the smallest real one.",
        better="lower",
        headline=(Headline(rank=51),),
        by_region="missing regions",
        open_by_region=True,
        watches="missing organs",
    ),
    Quantity(
        name="rvr_absent",
        criterion="completeness",
        title="Share of samples without the region",
        decimals=2,
        meaning="Fraction of samples without a single voxel of a region; given in place of rvr_missing against a reference file.",
        better="lower",
        headline=(Headline(rank=52),),
        by_region="absent regions",
        open_by_region=True,
        watches="absent organs",
    ),
    Quantity(
        name="rvr_w1",
        criterion="congruence",
        title="Wasserstein-1 distance of RVR",
        table="rvr_distances",
        meaning="Distance of a region's volume ratios from the real ones (Wasserstein-1).",
        better="lower",
    ),
    Quantity(
        name="rvr_ks",
        title="Kolmogorov-Smirnov distance of RVR",
        table="rvr_distances",
        decimals=2,
        meaning="The largest difference between the distributions of a region's volume ratios in samples and real volumes.",
        better="lower",
    ),
    Quantity(
        name="rvr_variance_ratio",
        criterion="coverage",
        title="Variance ratio of RVR",
        table="rvr_distances",
        decimals=2,
        meaning="Variance of a region's volume ratios over that of real volumes: 1 is right, below 1 the samples are too similar.",
    ),
    Quantity(
        name="rvr_joint",
        criterion="congruence",
        title="Joint RVR",
        meaning="Distance of the joint volumes of all regions from real ones: about 0 for equal sets.",
        better="lower",
        headline=(Headline(rank=50, reference="train"),),
    ),
)

BY_NAME = {one.name: one for one in QUANTITIES}
