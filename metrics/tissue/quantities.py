"""The quantities of the tissue metric: a level and a shift of each, and the joint distance."""

from __future__ import annotations

from medlord_bench.contracts.metrics import Headline, Quantity
from medlord_bench.descriptors.quantities import described

JOINT = Quantity(
    name="tissue_joint",
    criterion="congruence",
    title="Joint HU and noise",
    meaning="Distance of HU, noise and sharpness of all tissues together from real volumes: about 0 for equal sets.",
    better="lower",
    headline=(Headline(rank=45, reference="train"),),
    watches="tissues that differ from real ones",
)


QUANTITIES = (
    JOINT,
    *described("tissue_hu", "HU", "Median HU of a tissue.", "HU", 0, drawn=True, open_by_region=True),
    *described(
        "tissue_spread", "Spread of HU", "Standard deviation of HU within a tissue, without its noise.", "HU", 1
    ),
    *described(
        "tissue_noise",
        "Noise",
        "Standard deviation of the noise in homogeneous places of a tissue.",
        "HU",
        1,
        drawn=True,
    ),
    *described("tissue_share", "Share of the body", "Part of the body that is of a tissue, by HU.", "", 3),
    *described(
        "tissue_nps",
        "Mean frequency of the noise",
        "Mean frequency of the noise power spectrum in a plane: lower for smoother noise, 0.40 for white noise.",
        "1/voxel",
        3,
    ),
    *described(
        "tissue_edge",
        "Width of borders",
        "Width of the borders of the lungs and of the body: larger for blurred ones.",
        "voxels",
        2,
    ),
)
