"""The numbers that adherence gives."""

from __future__ import annotations

from medlord_bench.contracts.metrics import Headline, Quantity

QUANTITIES = (
    Quantity(
        name="dsc",
        meaning="Overlap (Dice) of each conditional sample, segmented again, with the mask it had to follow; beside it the ceiling that the segmenter reaches on real images.",
        better="higher",
        headline=(Headline(rank=60),),
        open_by_region=True,
        margin=0.05,
        watches="regions of masks that are missed",
    ),
    Quantity(
        name="nsd",
        meaning="Share of the surfaces of sample and mask that lie within the tolerance of each other.",
        better="higher",
    ),
    Quantity(
        name="hd95",
        meaning="Distance that 95 % of the surfaces of sample and mask stay within.",
        unit="mm",
        better="lower",
    ),
    Quantity(
        name="dsc_ceiling_real",
        meaning="What the segmenter itself reaches on real test images: no sample can be asked for more.",
        better="higher",
    ),
    Quantity(
        name="dsc_ceiling_reconstruction",
        meaning="What the segmenter reaches on the autoencoder's reconstructions of real images.",
        better="higher",
    ),
)

BY_NAME = {one.name: one for one in QUANTITIES}
