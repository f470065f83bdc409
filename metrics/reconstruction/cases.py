"""Real images and their reconstructions, case by case, and the reported medians over patients."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import Item, State
from medlord_bench.contracts.metrics import Quantity
from medlord_bench.contracts.results import CaseRow, Note, Score, notes
from medlord_bench.errors import UserError
from medlord_bench.stats import MedianInterval, median_interval
from medlord_bench.volumes.arrays import load_state, read_hu

LACKING = "a grid of fewer than two scales, or less than 1 % body"
REGIONS = ("", "body")  # the order of the numbers in a state
Values = Mapping[str, float | None]


def read_pair(item: Item) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """A reconstruction and its real image, int16 (X, Y, Z) in HU. Raises `UserError` if they are not a pair."""
    assert item.path is not None
    if item.reference is None:
        raise UserError(f"case {item.id}: no real image for {item.path}; expected one: reconstruct it again")
    made, real = read_hu(item.path), read_hu(item.reference)
    if made.shape != real.shape:
        raise UserError(
            f"{item.path}: grid {made.shape}, but its real image {item.reference} has {real.shape}; "
            "expected one grid: reconstruct it again on the protocol's"
        )
    return made, real


def load_states(items: Sequence[Item]) -> dict[str, State | None]:
    """The state of each case; None if it failed."""
    states = {item.id: None if item.path is None else load_state(item.path) for item in items}
    return {case: None if state is None or "failed" in state else state for case, state in states.items()}


def not_reconstructed(metric: str, common: Mapping[str, Any]) -> Score:
    reason = "the generator has no autoencoder, so nothing was reconstructed"
    return Score(metric=metric, reference="test", status="not_run", reason=reason, **common)


def summarise(
    items: Sequence[Item], values: Values, quantity: Quantity, shared: Mapping[str, Any]
) -> Iterator[Score | CaseRow]:
    """The median over patients of each one's median, and a row for every case that has a number.

    values: per case; the worst infinity for a failed case, the best for identical images, None if there is no value.
    shared: the other fields of the score.
    """
    worst = -math.inf if quantity.better == "higher" else math.inf
    yield _score(items, values, worst, {**shared, "metric": quantity.name, "reference": "test"})
    where = {"metric": quantity.name, "generator": shared["generator"], "region": shared["region"]}
    for item in items:
        value = values[item.id]
        if value is not None and math.isfinite(value):
            yield CaseRow(case=item.id, value=float(value), patient=item.patient or item.id, **where)


def _score(items: Sequence[Item], values: Values, worst: float, shared: dict[str, Any]) -> Score:
    patients: dict[str, list[float]] = {}
    for item in items:
        value = values[item.id]
        if value is not None:
            patients.setdefault(item.patient or item.id, []).append(value)
    shared |= {"failed": sum(value == worst for value in values.values())}
    shared |= {"n": sum(map(len, patients.values())) or len(items)}
    if not patients:
        return Score(status="not_run", reason=f"no case has a value: {LACKING}", **shared)
    found = median_interval([median_interval(own).value for own in patients.values()])
    about = tuple(_notes(found, values, worst, len(patients)))
    if not math.isfinite(found.value):
        failed = f"{shared['failed']} of {len(items)} cases failed"
        reason = failed if found.value == worst else "most cases equal their image: infinite"
        return Score(status="not_run", reason=reason, notes=about, **shared)
    how = "" if found.low is None else f"95 % order statistics of the median of {len(patients)} patients"
    quartiles = (found.lower_quartile, found.upper_quartile)
    return Score(
        value=found.value,
        low=_finite(found.low),
        high=_finite(found.high),
        interval=how,
        quartiles=quartiles if all(map(math.isfinite, quartiles)) else None,
        notes=about,
        **shared,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _notes(found: MedianInterval, values: Values, worst: float, patients: int) -> Iterator[Note]:
    identical = sum(value == -worst for value in values.values())
    missing = sum(value is None for value in values.values())
    yield from notes("definition", f"median, IQR {found.lower_quartile:.4g} to {found.upper_quartile:.4g}")
    if len(values) - missing > patients:
        yield from notes("counts", f"{len(values) - missing} cases of {patients} patients, a patient counts once")
    if identical:
        yield from notes("counts", f"{identical} cases equal their image: infinite, ranked first")
    if missing:
        lost = f"{missing} cases have no value here ({LACKING}) and are left out of n"
        yield from notes("counts", lost)
    if found.low is None:
        yield from notes("caution", f"no interval: {patients} patients, at least 6 are needed")
