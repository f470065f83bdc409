"""From label maps to regional volume ratios: voxels counted here, never taken from a segmenter's own statistics.

(TotalSegmentator's `statistics` give volume 0 to every mask within 3 voxels of the border; a cropped aorta always is.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import Item, LabelMap, State
from medlord_bench.contracts.regions import members
from medlord_bench.volumes.arrays import load_state

Vector = NDArray[np.float64]
UNKNOWN = -1  # instead of a number of voxels: the label map has no label for that region
MM3_PER_ML = 1000.0


def count(labels: LabelMap, regions: Sequence[str], spacing: tuple[float, float, float] | None) -> State:
    """{"voxels": int64 (R,), -1 if the map does not define the region; "total": int64 (1,); "voxel_mm3": float64 (1,),
    NaN if there is no spacing}. A region that is made of several labels is their sum."""
    per_label = np.zeros(256, dtype=np.int64)
    for plane in labels.labels:  # bincount widens to 64 bits: never the whole volume at once
        per_label += np.bincount(plane.ravel(), minlength=256)
    voxels = [_sum(per_label, labels.names, region) for region in regions]
    return {
        "voxels": np.array(voxels, dtype=np.int64),
        "total": np.array([labels.labels.size], dtype=np.int64),
        "voxel_mm3": np.array([np.nan if spacing is None else np.prod(spacing)]),
    }


def _sum(per_label: NDArray[np.int64], names: Mapping[int, str], region: str) -> int:
    own = [value for value, name in names.items() if value > 0 and name in members(region)]
    return int(per_label[own].sum()) if own else UNKNOWN


@dataclass(frozen=True, eq=False)
class Volumes:
    """One set of volumes. items: all of them, including failed ones; the arrays are of those that have a label map.

    rvr: voxels in the region over all voxels, (measured, regions); NaN if the segmenter does not define the region.
    ml: the same region in mL, NaN if the voxel size is unknown.
    """

    items: Sequence[Item]
    measured: Sequence[Item]
    rvr: Vector
    ml: Vector

    @classmethod
    def of(cls, items: Sequence[Item], regions: int) -> Volumes:
        measured = [item for item in items if item.path is not None]
        states = [load_state(item.path) for item in measured if item.path is not None]
        voxels = np.array([state["voxels"] for state in states], dtype=np.float64).reshape(len(states), regions)
        voxels[voxels == UNKNOWN] = np.nan
        totals = np.array([state["total"] for state in states], dtype=np.float64).reshape(len(states), 1)
        sizes = np.array([state["voxel_mm3"] for state in states]).reshape(len(states), 1)
        return cls(items, measured, voxels / totals, voxels * sizes / MM3_PER_ML)

    @property
    def n(self) -> int:
        return len(self.items)

    @property
    def failed(self) -> int:
        return len(self.items) - len(self.measured)

    @property
    def first_failure(self) -> str:
        return next((item.failed for item in self.items if item.failed), "")

    def of_metric(self, metric: Literal["rvr", "rvr_ml"]) -> Vector:
        return self.ml if metric == "rvr_ml" else self.rvr

    def of_items(self, items: Sequence[Item]) -> Volumes:
        """A subset of the set."""
        wanted = {item.id for item in items}
        rows = [row for row, item in enumerate(self.measured) if item.id in wanted]
        return Volumes(items, [self.measured[row] for row in rows], self.rvr[rows], self.ml[rows])

    def by_patient(self) -> tuple[list[str], Vector]:
        """Patients, and the RVR of each: the median of the patient's volumes, which are not independent."""
        rows: dict[str, list[int]] = {}
        for row, item in enumerate(self.measured):
            rows.setdefault(item.patient or item.id, []).append(row)
        values = np.array([np.median(self.rvr[own], axis=0) for own in rows.values()])
        return list(rows), values.reshape(len(rows), self.rvr.shape[1])
