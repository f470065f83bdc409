"""The quantities of reconstruction."""

from __future__ import annotations

from medlord_bench.contracts.metrics import Headline, Quantity

QUANTITIES = (
    Quantity(
        name="psnr",
        title="PSNR",
        spread="sd",
        decimals=3,
        meaning="Accuracy of the autoencoder's reconstructions of real test images, voxel by voxel.",
        unit="dB",
        better="higher",
        headline=(Headline(rank=70),),
        cases_of="reconstructions",
    ),
    Quantity(
        name="ms_ssim",
        title="MS-SSIM",
        spread="sd",
        decimals=3,
        meaning="Structural similarity of the autoencoder's reconstructions to real test images, over several scales.",
        better="higher",
        headline=(Headline(rank=71),),
        cases_of="reconstructions",
    ),
)

LPIPS_QUANTITIES = (
    Quantity(
        name="lpips",
        title="LPIPS",
        table="reconstruction",
        spread="sd",
        decimals=3,
        meaning="Distance of the autoencoder's reconstructions from real test images in the features of a network.",
        better="lower",
        headline=(Headline(rank=72),),
        cases_of="reconstructions",
    ),
)

BY_NAME = {one.name: one for one in (*QUANTITIES, *LPIPS_QUANTITIES)}
