"""The quantities of the artefact descriptors."""

from __future__ import annotations

from medlord_bench.contracts.metrics import Headline, Quantity
from medlord_bench.descriptors.quantities import described

QUANTITIES = (
    Quantity(
        name="artefact_joint",
        criterion="congruence",
        title="Joint artefacts",
        meaning="Distance of seams, patterns, banding and nodules from those of real volumes, all together: about 0 for equal sets.",
        better="lower",
        headline=(Headline(rank=56, reference="train"),),
        watches="seams, patterns and false nodules",
    ),
    *described(
        "artefact_seam",
        "Seam",
        "Jump between two neighbouring planes over the typical one: in the middle, the largest, and on grids of tiles.",
    ),
    *described(
        "artefact_banding", "Banding", "Spread of the steps between neighbouring planes, as slice offsets cause.", "HU"
    ),
    *described(
        "artefact_detail",
        "Detail",
        "Typical difference of neighbouring voxels along an axis over the mean of all axes: 1 is even.",
    ),
    *described(
        "artefact_period",
        "Pattern",
        "Standard deviation of what repeats every 2, 4 or 8 voxels, as a decoder's checkerboard does.",
        "HU",
    ),
    *described(
        "artefact_uneven",
        "Uneven planes",
        "Detail of even planes against that of odd ones: 0 is equal, 1 is planes in identical pairs.",
    ),
    *described(
        "artefact_nodules", "Compact bright spots", "Compact bright spots in the lungs, per litre of lung.", "1/L"
    ),
)
