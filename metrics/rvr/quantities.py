"""The numbers that the regional volume ratios gives."""

from __future__ import annotations

from medlord_bench.contracts.metrics import Headline, Quantity

QUANTITIES = (
    Quantity(
        name="rvr",
        open_by_region=True,
        distribution="region / all voxels",
        meaning="Voxels of a region over all voxels, median of the samples: right where it is as in real volumes.",
    ),
    Quantity(
        name="rvr_ml",
        meaning="Volume of a region in mL, median of the samples: right where it is as in real volumes.",
        unit="mL",
    ),
    Quantity(
        name="rvr_missing",
        meaning="Share of samples that lack a region, or have less than half of the smallest real one.",
        better="lower",
        headline=(Headline(rank=51),),
        by_region="missing regions",
        open_by_region=True,
        watches="missing organs",
    ),
    Quantity(
        name="rvr_w1",
        meaning="How far a region's volume ratios lie from the real ones (Wasserstein-1).",
        better="lower",
    ),
    Quantity(
        name="rvr_ks",
        meaning="The largest gap between the distributions of a region's volume ratios, samples and real volumes.",
        better="lower",
    ),
    Quantity(
        name="rvr_variance_ratio",
        meaning="Spread of a region's volume ratios over that of real volumes: 1 is right, below 1 too alike.",
    ),
    Quantity(
        name="rvr_joint",
        meaning="How far the volumes of all regions together lie from real ones: about 0 for equal sets.",
        better="lower",
        headline=(Headline(rank=50, reference="train"),),
    ),
)

BY_NAME = {one.name: one for one in QUANTITIES}
