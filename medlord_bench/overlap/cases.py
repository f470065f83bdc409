"""The empty-mask policy: the score of a case whose region is absent, missed or a false positive. Medians over
patients."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medlord_bench import stats
from medlord_bench.contracts import Item
from medlord_bench.overlap.compare import UNKNOWN, voxels_of
from medlord_bench.util.seeds import numpy_rng
from medlord_bench.volumes.arrays import load_state
from medlord_bench.volumes.checks import item_reference

Name = Literal["dsc", "nsd", "hd95"]
NAMES: tuple[Name, ...] = ("dsc", "nsd", "hd95")
WORST: dict[Name, float] = {"dsc": 0.0, "nsd": 0.0, "hd95": float("inf")}
POLICY = {
    "both empty": "the region does not apply to the case: left out, and counted",
    "mask has it, sample lacks it": "missed: DSC 0, NSD 0, HD95 infinite",
    "mask lacks it, sample has it": "false positive: DSC 0, NSD 0, HD95 infinite",
    "sample failed, or could not be segmented": "DSC 0, NSD 0, HD95 infinite in every region that its mask has",
}
Kind = Literal["measured", "missed", "false positive", "failed", "absent", "unknown to mask", "unknown to segmenter"]
RESAMPLES = 2000
LEAST_PATIENTS = 6  # with fewer, neither order statistics nor resampling give an interval


@dataclass(frozen=True, eq=False)
class Table:
    """The scores of every case of one source, (cases, regions) each.

    kinds: the region's outcome. scores: by the policy; NaN if it does not apply, and for NSD and HD95 if
    the case has no voxel size.
    """

    items: Sequence[Item]
    kinds: NDArray[np.str_]
    scores: Mapping[Name, NDArray[np.float64]]

    def counts(self, region: int) -> Counter[str]:
        return Counter(self.kinds[:, region].tolist())

    def failed(self) -> int:
        return sum(item.path is None for item in self.items)


def tabulate(items: Sequence[Item], regions: Sequence[str], masks: Mapping[str, NDArray[Any]]) -> Table:
    """Apply the policy. masks: case -> voxels of each region in its mask, for cases that failed."""
    kinds = np.full((len(items), len(regions)), "absent", dtype="<U20")
    scores = {name: np.full(kinds.shape, np.nan) for name in NAMES}
    for row, item in enumerate(items):
        state = None if item.path is None else load_state(item.path)
        for column, region in enumerate(regions):
            if state is None:
                held = _held(item, region, column, masks)
                kinds[row, column] = "failed" if held else "absent" if held == 0 else "unknown to mask"
            else:
                kinds[row, column] = _kind(int(state["mask_voxels"][column]), int(state["made_voxels"][column]))
        for name in NAMES:
            if name != "dsc" and item.spacing is None:
                continue
            worst = np.isin(kinds[row], ("missed", "false positive", "failed"))
            scores[name][row] = np.where(worst, WORST[name], np.nan if state is None else state[name])
    return Table(items, kinds, scores)


def _kind(mask: int, made: int) -> Kind:
    if mask == UNKNOWN:
        return "unknown to mask"
    if made == UNKNOWN:
        return "unknown to segmenter"
    if mask == 0:
        return "absent" if made == 0 else "false positive"
    return "missed" if made == 0 else "measured"


def _held(item: Item, region: str, column: int, masks: Mapping[str, NDArray[Any]]) -> int | None:
    """Voxels of a region in the mask of a case that failed; None if the mask does not know it.

    A case whose mask is not available is assumed to have every region: a failure is never left out.
    """
    if item.id in masks:
        found = int(masks[item.id][column])
    elif item.reference is not None and item.reference_names:
        found = voxels_of(item_reference(item), region)
    else:
        return 1
    return None if found == UNKNOWN else found


def masks_of(*sources: Sequence[Item]) -> dict[str, NDArray[Any]]:
    """Case -> voxels of each region in its mask, from any of its sources that has a state with a mask."""
    found: dict[str, NDArray[Any]] = {}
    for item in (item for items in sources for item in items if item.path is not None):
        assert item.path is not None
        voxels = load_state(item.path)["mask_voxels"]
        if item.id not in found and (voxels != UNKNOWN).any():
            found[item.id] = voxels
    return found


@dataclass(frozen=True)
class Summary:
    """The median over patients of each patient's median case. cases: those that have a score."""

    median: stats.MedianInterval
    cases: int
    patients: int


def summarise(table: Table, region: int, name: Name) -> Summary | None:
    """The median of one region; None if no case has a score there."""
    own = by_patient(table, region, name)
    if not own:
        return None
    cases = int((~np.isnan(table.scores[name][:, region])).sum())
    return Summary(stats.median_interval(list(own.values())), cases, len(own))


def by_patient(table: Table, region: int, name: Name) -> dict[str, float]:
    """Patient -> the median of the patient's cases that have a score in a region."""
    patients: dict[str, list[float]] = {}
    for item, value in zip(table.items, table.scores[name][:, region].tolist(), strict=True):
        if not np.isnan(value):
            patients.setdefault(item.patient or item.id, []).append(value)
    return {patient: stats.median_interval(values).value for patient, values in patients.items()}


@dataclass(frozen=True)
class Pooled:
    """The mean over regions of their medians; low and high: 95 % percentile bootstrap over patients, or None."""

    value: float
    low: float | None
    high: float | None
    patients: int


def pool(table: Table, regions: Sequence[int], name: Name) -> Pooled | None:
    """Per region first, then across regions (Metrics Reloaded). The mean, since a median over regions would not show
    that one of them is always missed. None if no region has a score."""
    columns = [own for region in regions if (own := by_patient(table, region, name))]
    if not columns:
        return None
    patients = sorted({patient for own in columns for patient in own})
    scores = np.array([[own.get(patient, np.nan) for own in columns] for patient in patients])
    value = float(np.mean([stats.median_interval(list(own.values())).value for own in columns]))
    if len(patients) < LEAST_PATIENTS or not np.isfinite(value):
        return Pooled(value, None, None, len(patients))
    drawn = numpy_rng(0, "adherence", "patients").integers(len(patients), size=(RESAMPLES, len(patients)))
    means = np.nanmean(_medians(scores[drawn]), axis=1)
    low, high = np.quantile(means, [0.025, 0.975], method="nearest")  # resamples may be infinite
    return Pooled(value, float(low), float(high), len(patients))


def _medians(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Along axis 1 of (resamples, patients, regions), NaN left out, infinity kept; NaN if all are NaN."""
    ordered = np.sort(scores, axis=1)  # NaN last
    count = (~np.isnan(scores)).sum(axis=1, keepdims=True)
    ends = [np.take_along_axis(ordered, place, axis=1) for place in (np.maximum(count - 1, 0) // 2, count // 2)]
    medians: NDArray[np.float64] = (ends[0] + ends[1])[:, 0] / 2
    return medians


def finite(value: float | None) -> float | None:
    """None for an infinite number, which a score cannot have."""
    return value if value is not None and math.isfinite(value) else None


def median_fields(found: Summary) -> dict[str, Any]:
    """The fields of a score that is a median. Infinite ends and quartiles are left out."""
    median = found.median
    quartiles = (median.lower_quartile, median.upper_quartile)
    how = "" if median.low is None else f"95 % order statistics of the median of {found.patients} patients"
    return {
        "value": median.value,
        "quartiles": quartiles if all(map(math.isfinite, quartiles)) else None,
        "low": finite(median.low),
        "high": finite(median.high),
        "interval": how,
    }
