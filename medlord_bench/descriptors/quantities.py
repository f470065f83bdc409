"""The declarations of a descriptor: its level in the samples, and its difference from real volumes."""

from __future__ import annotations

from medlord_bench.contracts.metrics import Quantity

LEVEL = "{} Median of the samples: should equal that of real volumes."
SHIFT = "{}: typical difference of a sample from a real patient; 0 is right."


def described(
    name: str,
    title: str,
    meaning: str,
    unit: str = "",
    decimals: int | None = None,
    drawn: bool = False,
    open_by_region: bool = False,
) -> tuple[Quantity, Quantity]:
    """The quantities `name` and `name`_shift, in tables of their own.

    meaning: one sentence. drawn: whether figures show its distribution. open_by_region: whether the table of the
    differences is open; the others fold away.
    """
    axis = f"{title}, {unit}" if unit and unit != title else title
    level = Quantity(
        name=name,
        title=title,
        spread="iqr",
        unit=unit,
        decimals=decimals,
        meaning=LEVEL.format(meaning),
        distribution=axis if drawn else "",
    )
    shift = Quantity(
        name=f"{name}_shift",
        title=f"{title}, difference",
        table=f"{name.partition('_')[0]}_shifts",
        criterion="congruence",
        unit=unit,
        decimals=decimals,
        open_by_region=open_by_region,
        meaning=SHIFT.format(title),
    )
    return level, shift
