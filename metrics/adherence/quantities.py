"""The quantities of adherence."""

from __future__ import annotations

from medlord_bench.contracts.metrics import Headline, Quantity

QUANTITIES = (
    Quantity(
        name="dsc",
        criterion="constraint",
        title="DSC",
        spread="iqr",
        decimals=2,
        meaning="Overlap (Dice) of each conditional sample, segmented again, with its condition mask. The ceiling is the segmenter's own score on real images.",
        better="higher",
        headline=(Headline(rank=60),),
        open_by_region=True,
        margin=0.05,
        cases_of="conditional",
        watches="regions of masks that are missed",
    ),
    Quantity(
        name="nsd",
        title="NSD",
        spread="iqr",
        decimals=2,
        meaning="Fraction of the surfaces of sample and mask that are within the tolerance of each other.",
        better="higher",
    ),
    Quantity(
        name="hd95",
        title="HD95",
        spread="iqr",
        decimals=2,
        meaning="95th percentile of the distances between the surfaces of sample and mask.",
        unit="mm",
        better="lower",
    ),
    Quantity(
        name="dsc_ceiling_real",
        title="DSC on real images",
        table="adherence_ceilings",
        spread="iqr",
        decimals=2,
        meaning="Score of the segmenter itself on real test images: the most to be expected of a sample.",
        better="higher",
    ),
    Quantity(
        name="dsc_ceiling_reconstruction",
        title="DSC on reconstructions",
        table="adherence_ceilings",
        spread="iqr",
        decimals=2,
        meaning="Score of the segmenter on the autoencoder's reconstructions of real images.",
        better="higher",
    ),
)

BY_NAME = {one.name: one for one in QUANTITIES}
