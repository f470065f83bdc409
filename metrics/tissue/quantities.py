"""The quantities of the tissue metric: a level and a shift of each, and the joint distance."""

from __future__ import annotations

from medlord_bench.contracts.metrics import Headline, Quantity

SHIFTS = "tissue_shifts"
JOINT = Quantity(
    name="tissue_joint",
    criterion="congruence",
    title="Joint HU and noise",
    meaning="Distance of HU, noise and sharpness of all tissues together from real volumes: about 0 for equal sets.",
    better="lower",
    headline=(Headline(rank=45, reference="train"),),
    watches="tissues that differ from real ones",
)


def _pair(
    name: str, title: str, unit: str, meaning: str, decimals: int, distribution: str = ""
) -> tuple[Quantity, ...]:
    """A descriptor's level, and its difference from real volumes."""
    level = Quantity(
        name=name, title=title, unit=unit, decimals=decimals, spread="iqr", meaning=meaning, distribution=distribution
    )
    shift = Quantity(
        name=f"{name}_shift",
        title=f"{title}, difference from real",
        unit=unit,
        decimals=decimals,
        table=SHIFTS,
        criterion="congruence",
        open_by_region=name == "tissue_hu",
        meaning=f"Typical difference of a sample from a real volume: {title}.",
    )
    return level, shift


QUANTITIES = (
    JOINT,
    *_pair("tissue_hu", "HU", "HU", "Median HU of a tissue, median of the samples.", 0, "HU"),
    *_pair("tissue_spread", "Spread of HU", "HU", "Standard deviation of HU within a tissue, without its noise.", 1),
    *_pair(
        "tissue_noise",
        "Noise",
        "HU",
        "Standard deviation of the noise in homogeneous places of a tissue.",
        1,
        "noise in HU",
    ),
    *_pair("tissue_share", "Share of the body", "", "Part of the body that is of a tissue, by HU.", 3),
    *_pair(
        "tissue_nps",
        "Mean frequency of the noise",
        "1/voxel",
        "Mean frequency of the noise power spectrum in a plane: lower for smoother noise, 0.40 for white noise.",
        3,
    ),
    *_pair(
        "tissue_edge",
        "Width of borders",
        "voxels",
        "Width of the borders of the lungs and of the body: larger for blurred ones.",
        2,
    ),
)
