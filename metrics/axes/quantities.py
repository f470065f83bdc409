"""The quantities of the orientation check."""

from __future__ import annotations

from medlord_bench.contracts.metrics import Quantity

QUANTITIES = (
    Quantity(
        name="axes",
        criterion="constraint",
        title="Correlation of the mean volumes",
        table="orientation",
        decimals=3,
        meaning="Correlation of the mean sample with the mean real volume; a warning if another orientation of the samples fits better.",
        better="higher",
        watches="rotated or mirrored samples",
    ),
)
