"""The numbers that the check of orientation gives."""

from __future__ import annotations

from medlord_bench.contracts.metrics import Quantity

QUANTITIES = (
    Quantity(
        name="axes",
        meaning="Correlation of the mean sample with the mean real volume as they lie; warned where they fit better turned.",
        better="higher",
        watches="samples that lie turned or mirrored",
    ),
)
