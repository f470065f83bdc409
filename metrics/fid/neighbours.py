"""Precision, recall, density and coverage of volumes, one vector each."""

from __future__ import annotations

from collections.abc import Iterator

from medlord_bench import stats
from medlord_bench.contracts.results import notes

from .config import SHARES, FIDConfig
from .measured import Measured, too_few_units
from .sides import OTHER, Features, Sides

WILSON = "95 % Wilson over {} {}; the other set, whose balls decide, is taken as given"


def shares(features: Features, sides: Sides, split: str, config: FIDConfig) -> Iterator[Measured]:
    """The four shares against `split`, or why not; one volume a patient, and as many samples."""
    few = too_few_units(features, split, config.prdc_minimum)
    if few:
        yield from (Measured(name, reason=few, better="higher", n_reference=sides.ok) for name in SHARES)
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
        "precision": f"share of samples within a ball about a real volume, k = {k}",
        "recall": f"share of real volumes within a ball about a sample, k = {k}",
        "density": f"real balls that hold a sample, a k-th of them, k = {k}, which is no share and has no interval",
        "coverage": f"share of real volumes with a sample in their ball, k = {k}, "
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
            better="higher",
            low=low,
            high=high,
            interval=how,
            n_reference=n,
            floor=None if floor is None else float(getattr(floor, name)),
            floor_note=floor_note,
            notes=notes("definition", definitions[name]),
        )
