"""The quantities of the anatomy descriptors."""

from __future__ import annotations

from medlord_bench.contracts.metrics import Headline, Quantity
from medlord_bench.descriptors.quantities import described

QUANTITIES = (
    Quantity(
        name="anatomy_joint",
        criterion="congruence",
        title="Joint anatomy",
        meaning="Distance of shape, place, vessels and bone from those of real volumes, all together: about 0 for equal sets.",
        better="lower",
        headline=(Headline(rank=55, reference="train"),),
        watches="implausible anatomy",
    ),
    *described("anatomy_share", "Share", "Volume of a region over that of the body's box, or of bone over all tissue."),
    *described(
        "anatomy_extent",
        "Extent",
        "Length of a region along an axis over that of the body; of the mediastinum, its width over that of the thorax.",
    ),
    *described(
        "anatomy_place",
        "Place",
        "Centroid of a region in the box of the body, 0 to 1 along an axis: right to left is from 1 to 0 along x.",
    ),
    *described(
        "anatomy_sphericity", "Sphericity", "Surface of a ball of equal volume over that of the region: 1 is a ball."
    ),
    *described(
        "anatomy_distance",
        "Distance",
        "Mean distance of one region's voxels from another region, over the width of the body.",
    ),
    *described(
        "anatomy_vessels",
        "Vessels of the lungs",
        "Share of the lungs that is brighter than the lung, as vessels are.",
        drawn=True,
    ),
    *described("anatomy_bone", "HU of bone", "Median HU of bone, found by HU alone.", "HU", drawn=True),
)
