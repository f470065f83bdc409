"""The quantity of radiomic features."""

from __future__ import annotations

from medlord_bench.contracts.metrics import Headline, Quantity

QUANTITIES = (
    Quantity(
        name="frd",
        criterion="congruence",
        title="FRD",
        decimals=2,
        meaning="Logarithm of the squared Fréchet distance of radiomic features, which describe HU and texture of whole "
        "volumes: read it beside its floor.",
        better="lower",
        headline=(Headline(rank=16, reference="test"),),
        interval="delete-one jackknife by volume and patient",
    ),
)
