"""All descriptors of a volume's artefacts, in one order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medlord_bench.descriptors.table import Descriptor
from medlord_bench.volumes.body import Spacing

from . import lattice, planes
from .nodules import SIZES_MM, nodules

AXES = ("x", "y", "z")
RATIO, HU, SHARE, SPOTS = 0.5, 0.5, 0.02, 1.0  # below which volumes count as alike
DESCRIPTORS = (
    *(Descriptor("artefact_seam", f"middle {axis}", RATIO) for axis in AXES),
    *(Descriptor("artefact_seam", f"largest {axis}", RATIO) for axis in AXES),
    *(Descriptor("artefact_seam", f"every {period} planes", RATIO) for period in planes.PERIODS),
    *(Descriptor("artefact_banding", axis, HU) for axis in AXES),
    *(Descriptor("artefact_detail", axis, SHARE) for axis in AXES),
    *(Descriptor("artefact_uneven", axis, SHARE) for axis in AXES),
    *(Descriptor("artefact_period", f"{period} voxels", HU) for period in lattice.PERIODS),
    *(Descriptor("artefact_nodules", f"about {size * 3**0.5:.2g} mm radius", SPOTS) for size in SIZES_MM),
)


def measure(hu: NDArray[np.int16], mm: Spacing) -> list[float]:
    """`DESCRIPTORS` of a volume with voxels of `mm`; NaN where it lacks what is described."""
    body, factors = planes.body_of(hu, mm)
    axes = [planes.along(hu, body, factors, axis) for axis in range(3)]
    every = [[axis.every(period) for axis in axes] for period in planes.PERIODS]
    mean = np.mean([axis.difference for axis in axes])
    return [
        *(axis.middle() for axis in axes),
        *(axis.largest() for axis in axes),
        *(float(np.nanmax(found)) if np.isfinite(found).any() else np.nan for found in every),
        *(axis.banding() for axis in axes),
        *(float(axis.difference / mean) if mean > 0 else np.nan for axis in axes),
        *(axis.uneven for axis in axes),
        *lattice.patterns(hu).values(),
        *nodules(hu, mm),
    ]
