"""Precision, recall, density and coverage of volumes, one vector each."""

from __future__ import annotations

from collections.abc import Iterator

from medlord_bench import stats
from medlord_bench.contracts.results import notes

from .config import SHARES, FamilyConfig
from .measured import Measured, too_few_units
from .sides import OTHER, Features, Sides

WILSON = "95 % Wilson over {} {}; the other set, which defines the balls, is treated as fixed"


def shares(features: Features, sides: Sides, split: str, config: FamilyConfig) -> Iterator[Measured]:
    """The four fractions against `split`, or the reason why not; one volume per patient, and as many samples."""
    few = too_few_units(features, split, config.prdc_minimum)
    if few:
        yield from (Measured(name, reason=few, n_reference=sides.ok) for name in SHARES)
        return
    k, other = config.neighbours, OTHER[split]
    n = min(len(features.units("samples")), len(features.units(split)))
    real = features.vectors(split)[:n]
    found = stats.prdc(real, features.vectors("samples")[:n], k)
    has_floor = sides.has_floor and len(features.units(other)) >= n
    floor = stats.prdc(real, features.vectors(other)[:n], k) if has_floor else None
    floor_note = (
        f"{n} real {other} patients in place of the samples" if floor else f"no floor: too few {other} patients"
    )
    definitions = {
        "precision": f"fraction of samples within a ball around a real volume, k = {k}",
        "recall": f"fraction of real volumes within a ball around a sample, k = {k}",
        "density": f"mean number of real balls that contain a sample, over k = {k}; not a fraction: no interval",
        "coverage": f"fraction of real volumes with a sample in their ball, k = {k}, "
        f"{stats.expected_coverage(n, n, k):.2f} expected of equal distributions",
    }
    for name in SHARES:
        value = float(getattr(found, name))
        low, high, how = None, None, ""
        if name != "density":
            low, high = stats.wilson(round(value * n), n)
            how = WILSON.format(n, "samples" if name == "precision" else "real volumes")
        yield Measured(
            name,
            value=value,
            low=low,
            high=high,
            interval=how,
            n_reference=n,
            floor=None if floor is None else float(getattr(floor, name)),
            floor_note=floor_note,
            notes=notes("definition", definitions[name]),
        )
