"""The descriptors of a set of volumes, one row per volume and one column per descriptor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import Item, State
from medlord_bench.errors import UserError
from medlord_bench.volumes.arrays import load_state

if TYPE_CHECKING:
    from pathlib import Path

Vector = NDArray[np.float64]
VALUES = "values"  # the array of a state: float64 (K,)


@dataclass(frozen=True)
class Descriptor:
    """One number of a volume.

    quantity: its name as a `Quantity`, e.g. tissue_hu. region: what it is of, e.g. a tissue or an organ.
    resolution: difference in its unit below which volumes count as alike: the joint distance is in this unit where the
    standard deviation of the real volumes is smaller.
    """

    quantity: str
    region: str
    resolution: float = 0.0


def state_of(values: Sequence[float]) -> State:
    """The state of a volume: its descriptors, in the metric's order; NaN where the volume lacks what is described."""
    return {VALUES: np.asarray(values, dtype=np.float64)}


@dataclass(frozen=True, eq=False)
class Table:
    """One set of volumes. items: all of them, including failed ones.

    values: (measured, descriptors), NaN where a volume lacks what is described.
    """

    items: Sequence[Item]
    measured: Sequence[Item]
    values: Vector

    @classmethod
    def of(cls, items: Sequence[Item], descriptors: int) -> Table:
        """Reads the states. Raises `UserError` naming a state of another number of descriptors."""
        measured = [item for item in items if item.path is not None]
        rows = [_row(item.path, descriptors) for item in measured if item.path is not None]
        return cls(items, measured, np.array(rows, dtype=np.float64).reshape(len(rows), descriptors))

    @property
    def n(self) -> int:
        return len(self.items)

    @property
    def failed(self) -> int:
        return len(self.items) - len(self.measured)

    @property
    def first_failure(self) -> str:
        return next((item.failed for item in self.items if item.failed), "")

    def by_patient(self) -> tuple[list[str], Vector]:
        """Patients, and the descriptors of each: the median over the volumes of the patient that have it."""
        rows: dict[str, list[int]] = {}
        for row, item in enumerate(self.measured):
            rows.setdefault(item.patient or item.id, []).append(row)
        found = np.full((len(rows), self.values.shape[1]), np.nan)
        for place, own in enumerate(rows.values()):
            part = self.values[own]
            known = ~np.isnan(part).all(axis=0)
            found[place, known] = np.nanmedian(part[:, known], axis=0)
        return list(rows), found


def _row(path: Path, descriptors: int) -> Vector:
    row = load_state(path).get(VALUES)
    if row is None or row.shape != (descriptors,) or np.isinf(row).any():
        found = "no array" if row is None else f"{row.dtype} {row.shape}"
        raise UserError(f"{path}: {VALUES}: {found}, expected ({descriptors},) finite numbers or NaN: measure again")
    return np.asarray(row, dtype=np.float64)
