"""`rvr` without real cases: quantiles of each region's volume ratio, and how many real volumes lack it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from medlord_bench import stats
from medlord_bench.contracts import Item
from medlord_bench.contracts.reference import NEEDS_CASES, Statistics
from medlord_bench.contracts.results import CaseRow, Note, Score, notes

from .scores import AGAINST_REAL, ALPHA, OF_SAMPLES, P_MISSING, SPLITS, lost, median_score, missing_below
from .volumes import Vector, Volumes

LEVELS = tuple(round(0.05 * step, 2) for step in range(1, 20))
LEAST_WITH = 10  # volumes that have a region, for statistics of it: with one, the mean would be its value
DIGITS = 3  # of published quantiles, means and deviations, so that none is a patient's exact value
Arrays = Mapping[str, Vector]


def least_patients(level: float) -> int:
    """The patients from which a quantile is published: at least one lies beyond it, on either side."""
    return round(1 / min(level, 1 - level))


def aggregate(items: Mapping[str, Sequence[Item]], regions: int) -> Statistics | None:
    """Of each real split: counts, volumes without a voxel of each region, and of RVR and mL the quantiles between 5 and
    95 % from 20 patients on, else mean and standard deviation; NaN where fewer than `LEAST_WITH` volumes have the region.
    Also the threshold of `rvr_missing`, half a 1 % quantile, where 100 train volumes have the region, and the volumes below."""
    real = {split: Volumes.of(items[f"real:{split}"], regions) for split in SPLITS}
    patients = {split: len(one.by_patient()[0]) for split, one in real.items()}
    if min(patients.values()) < 2:
        return None
    least = [_threshold(real["train"].rvr[:, place]) for place in range(regions)]
    arrays: dict[str, Any] = {"levels": LEVELS, "least": least}
    for split, one in real.items():
        arrays[f"{split}/counts"] = [one.n, one.failed, patients[split]]
        arrays[f"{split}/absent"] = [_absent(one, place) for place in range(regions)]
        arrays[f"{split}/missing"] = [lost(one, at, low) if low == low else low for at, low in enumerate(least)]
        for name, values in (("rvr", one.rvr), ("rvr_ml", one.ml)):
            arrays |= {f"{split}/{name}/{part}": found for part, found in _described(values, patients[split]).items()}
    return Statistics({name: np.array(one, dtype=np.float64) for name, one in arrays.items()}, min(patients.values()))


def _described(values: Vector, patients: int) -> dict[str, Vector]:
    """Quantiles, or mean and standard deviation, of each region."""
    shown = np.where((values > 0).sum(0) >= LEAST_WITH, values, np.nan)
    if patients < least_patients(LEVELS[0]):
        found = {"mean": shown.mean(0), "sd": shown.std(0, ddof=1)}
    else:
        found = {"quantiles": np.quantile(shown, LEVELS, axis=0).T}
    return {name: np.vectorize(lambda value: float(f"{value:.{DIGITS}g}"))(one) for name, one in found.items()}


def _threshold(train: Vector) -> float:
    """`missing_below` of a region; NaN if too few volumes have it."""
    found = missing_below(train) if (train > 0).sum() >= least_patients(0.01) else None
    return float("nan") if found is None else found


def _absent(volumes: Volumes, place: int) -> float:
    """Volumes without a voxel of a region, failed ones included; NaN if the segmenter does not define it."""
    values = volumes.rvr[:, place]
    return float("nan") if np.isnan(values).any() else float((values == 0).sum() + volumes.failed)


@dataclass(frozen=True, eq=False)
class Stored:
    """The samples, and the real volumes of a reference file. shared: fields of every score."""

    samples: Volumes
    arrays: Arrays
    regions: Sequence[str]
    segmenter: str
    shared: Mapping[str, Any]

    def _known(self, place: int) -> bool:
        """Whether the segmenter defines a region, in samples and real volumes."""
        real = any(np.isnan(self.arrays[f"{split}/absent"][place]) for split in SPLITS)
        return not real and not np.isnan(self.samples.rvr[:, place]).any()

    def _counts(self, split: str) -> tuple[int, int, int]:
        """Volumes, failed ones and patients of a real split."""
        n, failed, patients = (int(count) for count in self.arrays[f"{split}/counts"])
        return n, failed, patients

    def scores(self) -> Iterator[Score]:
        """As `Measured.scores`: of the samples by region; what compares distributions needs cases."""
        if not self.samples.n:
            for metric in (*OF_SAMPLES, *AGAINST_REAL):
                yield self._not_run(metric, "the generator has no unconditional samples")
            return
        yield from (self._not_run(metric, NEEDS_CASES) for metric in AGAINST_REAL)
        known = [place for place in range(len(self.regions)) if self._known(place)]
        for place in known:
            yield self._median("rvr", place)
            yield self._median("rvr_ml", place)
            yield self._missing(place)
            yield self._without(place)
        unknown = [region for place, region in enumerate(self.regions) if place not in known]
        if unknown:
            reason = f"the segmenter {self.segmenter} does not define it"
            yield self._not_run("rvr", reason, region=", ".join(unknown))

    def _not_run(self, metric: str, reason: str, region: str = "") -> Score:
        return Score(metric=metric, status="not_run", reason=reason, **self._at(region))

    def _at(self, region: str) -> dict[str, Any]:
        counts = {"n": self.samples.n, "failed": self.samples.failed}
        return {**self.shared, **counts, "reference": "train", "region": region}

    def _median(self, metric: Literal["rvr", "rvr_ml"], place: int) -> Score:
        if not self.samples.measured:
            reason = f"all {self.samples.n} samples failed, the first: {self.samples.first_failure}"
            return self._not_run(metric, reason, self.regions[place])
        values = self.samples.of_metric(metric)[:, place]
        if np.isnan(values).any():
            return self._not_run(metric, "generated volumes have no physical size", self.regions[place])
        about = (*self._described(metric, place), *self._failures())
        at = {**self._at(self.regions[place]), "n_reference": self._counts("train")[2]}
        return median_score(metric, values, about, at)

    def _described(self, metric: str, place: int) -> Iterator[Note]:
        for split in SPLITS:
            n, failed, _ = self._counts(split)
            quantiles = self.arrays.get(f"{split}/{metric}/quantiles")
            if quantiles is not None:
                low, middle, high = (quantiles[place][LEVELS.index(level)] for level in (0.25, 0.5, 0.75))
                text = f"median {middle:.3g}, IQR {low:.3g} to {high:.3g}"
            else:
                mean, sd = (self.arrays[f"{split}/{metric}/{name}"][place] for name in ("mean", "sd"))
                text = f"mean {mean:.3g}, standard deviation {sd:.3g}"
            if "nan" in text:
                text = f"no statistics, fewer than {LEAST_WITH} volumes have the region and a size"
            yield from notes("context", f"real {split}: {text}, n {n - failed}")

    def _failures(self) -> tuple[Note, ...]:
        failed = self.samples.failed
        return notes("counts", f"{failed} failed samples are left out here and count as missing" if failed else "")

    def _missing(self, place: int) -> Score:
        """`rvr_missing` with its threshold, where the file has it."""
        least = float(self.arrays["least"][place])
        if np.isnan(least):
            few = f"fewer than {least_patients(0.01)} real train volumes have the region; see rvr_absent"
            return self._not_run("rvr_missing", f"{NEEDS_CASES}: {few}", self.regions[place])
        about = notes("definition", f"missing: RVR below {least:.3g}")
        return self._share("rvr_missing", lost(self.samples, place, least), "missing", place, about)

    def _without(self, place: int) -> Score:
        about = notes("definition", "without a single voxel of the region; rvr_missing also counts remnants")
        return self._share("rvr_absent", int(_absent(self.samples, place)), "absent", place, about)

    def _share(self, metric: str, found: int, name: str, place: int, about: tuple[Note, ...]) -> Score:
        """A share of samples beside that of the real volumes."""
        real = {split: (int(self.arrays[f"{split}/{name}"][place]), self._counts(split)[0]) for split in SPLITS}
        low, high = stats.wilson(found, self.samples.n)
        known = f"{real['train'][0]} of {real['train'][1]} real train volumes"
        p = stats.more_often(found, self.samples.n, *real["train"])
        surprising = p * len(self.regions) <= ALPHA
        return Score(
            metric=metric,
            value=found / self.samples.n,
            low=low,
            high=high,
            interval="95 % Wilson",
            floor=real["test"][0] / real["test"][1],
            floor_n=real["test"][1],
            floor_note=f"{real['test'][0]} of {real['test'][1]} real test volumes, {known}",
            notes=about,
            p=p,
            p_of=P_MISSING,
            warning=f"{found} of {self.samples.n} samples lack it, {known} do" if surprising else "",
            n_reference=real["train"][1],
            **self._at(self.regions[place]),
        )

    def rows(self, generator: str) -> Iterator[CaseRow]:
        """`rvr` of every sample that has a label map."""
        for item, ratios in zip(self.samples.measured, self.samples.rvr.tolist(), strict=True):
            for place, region in enumerate(self.regions):
                if self._known(place):
                    yield CaseRow(metric="rvr", generator=generator, case=item.id, region=region, value=ratios[place])
