"""The numbers that reconstruction gives."""

from __future__ import annotations

from medlord_bench.contracts.metrics import Headline, Quantity

QUANTITIES = (
    Quantity(
        name="psnr",
        meaning="How closely the autoencoder gives back real test images, voxel by voxel.",
        unit="dB",
        better="higher",
        headline=(Headline(rank=70),),
    ),
    Quantity(
        name="ms_ssim",
        meaning="How closely the autoencoder gives back the structure of real test images, over several scales.",
        better="higher",
        headline=(Headline(rank=71),),
    ),
)

LPIPS_QUANTITIES = (
    Quantity(
        name="lpips",
        meaning="How far the autoencoder's reconstructions lie from real test images in the features of a network.",
        better="lower",
        headline=(Headline(rank=72),),
    ),
)
