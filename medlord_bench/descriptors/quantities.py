"""The declarations of a descriptor: its level in the samples, and its difference from real volumes."""

from __future__ import annotations

from medlord_bench.contracts.metrics import Quantity

LEVEL = "{} Median of the samples: should equal that of real volumes."
SHIFT = "{}: typical difference of a sample from a real patient; 0 is right."


def described(name: str, title: str, meaning: str, unit: str = "") -> tuple[Quantity, Quantity]:
    """The quantities `name` and `name`_shift, both in tables that fold away. meaning: one sentence."""
    level = Quantity(
        name=name,
        title=title,
        spread="iqr",
        unit=unit,
        meaning=LEVEL.format(meaning),
        distribution=f"{title}, {unit}" if unit else title,
    )
    table = f"{name.partition('_')[0]}_shifts"
    shift = Quantity(
        name=f"{name}_shift", title=f"{title}, difference", table=table, unit=unit, meaning=SHIFT.format(title)
    )
    return level, shift
