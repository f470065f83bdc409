"""From regional volume ratios to scores: per region against the real sets, and all regions together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medlord_bench import stats
from medlord_bench.contracts import Item
from medlord_bench.contracts.results import CaseRow, Note, Replicates, Score, notes
from medlord_bench.contracts.segmentation import WITHOUT_SPACING
from medlord_bench.util.seeds import numpy_rng

from .distances import joint, variance_ratio, wasserstein
from .volumes import Vector, Volumes

if TYPE_CHECKING:
    from .config import RVRConfig

Common = Mapping[str, Any]
SPLITS = ("train", "test")
OTHER = {"train": "test", "test": "train"}
OF_SAMPLES = ("rvr", "rvr_ml", "rvr_missing")  # given at any n
AGAINST_REAL = ("rvr_w1", "rvr_ks", "rvr_variance_ratio", "rvr_joint")
ALPHA = 0.05  # of the warning that a region is missing, over all regions together (Bonferroni)
P_MISSING = "Fisher's exact test, missing more often than in the training volumes, this region alone"
HOW_MEDIAN = "95 % order statistics of the median of {} samples"
HOW_JACKKNIFE = "95 % delete-one jackknife by sample and real patient"


@dataclass(frozen=True, eq=False)
class Measured:
    """The samples and both real splits, and how they are compared."""

    samples: Volumes
    real: Mapping[str, Volumes]
    regions: Sequence[str]
    segmenter: str
    config: RVRConfig

    @classmethod
    def of(
        cls, items: Mapping[str, Sequence[Item]], regions: Sequence[str], segmenter: str, config: RVRConfig
    ) -> Measured:
        samples, train, test = (Volumes.of(found, len(regions)) for found in items.values())
        return cls(samples, {"train": train, "test": test}, regions, segmenter, config)

    def _known(self) -> list[int]:
        """Regions that the segmenter defines."""
        everything = np.concatenate([self.samples.rvr, *(real.rvr for real in self.real.values())])
        return [place for place in range(len(self.regions)) if not np.isnan(everything[:, place]).any()]

    # -------------------------------------------------------------------------------------------------------- scores
    def scores(self, common: Common) -> Iterator[Score | Replicates]:
        """All regions together first, then each; then the regions that the segmenter does not define."""
        if not self.samples.n:
            reason = "the generator has no unconditional samples"
            for metric in (*OF_SAMPLES, *AGAINST_REAL):
                yield self._not_run(metric, reason, {**common, "reference": "train"})
            return
        for split in SPLITS:
            yield from self._joint(split, common)
        for place in self._known():
            yield from self._of_samples(place, common)
            for split in SPLITS:
                yield from self._against(split, place, common)
        unknown = [region for place, region in enumerate(self.regions) if place not in self._known()]
        if unknown:
            reason = f"the segmenter {self.segmenter} does not define it"
            yield self._not_run("rvr", reason, {**common, "reference": "train", "region": ", ".join(unknown)})

    def _not_run(self, metric: str, reason: str, shared: Common) -> Score:
        counts = {"n": self.samples.n, "failed": self.samples.failed, **shared}
        return Score(metric=metric, status="not_run", reason=reason, **counts)

    def _no_distribution(self, split: str, samples: int | None = None) -> str:
        """Why the samples cannot be compared with a split; empty if they can be."""
        measured = len(self.samples.measured) if samples is None else samples
        patients = len(self.real[split].by_patient()[0])
        least = f"at least {self.config.minimum} are needed"
        if measured < self.config.minimum:
            failed = f" ({self.samples.failed} of {self.samples.n} failed)" if self.samples.failed else ""
            return f"{measured} samples have a label map{failed}; {least}"
        return f"{patients} real {split} patients; {least}" if patients < self.config.minimum else ""

    # ------------------------------------------------------------------------------------------ of the samples alone
    def _of_samples(self, place: int, common: Common) -> Iterator[Score]:
        """`rvr`, `rvr_ml` and `rvr_missing` of a region."""
        shared = {**common, "reference": "train", "region": self.regions[place]}
        if not self.samples.measured:
            reason = f"all {self.samples.n} samples failed, the first: {self.samples.first_failure}"
            yield from (self._not_run(metric, reason, shared) for metric in ("rvr", "rvr_ml"))
        else:
            yield self._median("rvr", place, shared)
            if np.isnan(self.samples.ml[:, place]).any():
                yield self._not_run("rvr_ml", "generated volumes have no physical size", shared)
            else:
                yield self._median("rvr_ml", place, shared)
        yield self._missing(place, shared)

    def _median(self, metric: Literal["rvr", "rvr_ml"], place: int, shared: Common) -> Score:
        values = self.samples.of_metric(metric)[:, place]
        about = notes("context", *(_described(split, self.real[split].of_metric(metric)[:, place]) for split in SPLITS))
        if np.isnan(self.samples.ml).any():  # the grid has no voxel size
            about += notes("definition", f"segmented at {WITHOUT_SPACING}")
        return median_score(metric, values, (*about, *self._failures("train")), {**self._counts("train"), **shared})

    def _counts(self, split: str) -> dict[str, int]:
        real = self.real[split]
        return {"n": self.samples.n, "failed": self.samples.failed, "n_reference": len(real.by_patient()[0])}

    def _failures(self, split: str) -> Iterator[Note]:
        """The failures on both sides, so that all are reported."""
        if self.samples.failed:
            yield from notes("counts", f"{self.samples.failed} failed samples are left out here and count as missing")
        real = self.real[split]
        if real.failed:
            lost = f"{real.failed} of {real.n} real {split} volumes have no label map, the first: {real.first_failure}"
            yield from notes("counts", lost)

    def _missing(self, place: int, shared: Common) -> Score:
        """The rate of samples that lack the region, with that of the real volumes."""
        train = self.real["train"].rvr[:, place]
        least = missing_below(train)
        if least is None:
            reason = "no real train volume has it" if len(train) else "no real train volume has a label map"
            return self._not_run("rvr_missing", reason, shared)
        found = {name: lost(part, place, least) for name, part in {"": self.samples, **self.real}.items()}
        low, high = stats.wilson(found[""], self.samples.n)
        real, n_real = found["train"], self.real["train"].n
        known = f"{real} of {n_real} real train volumes"
        p = stats.more_often(found[""], self.samples.n, real, n_real)
        surprising = p * len(self._known()) <= ALPHA
        return Score(
            metric="rvr_missing",
            value=found[""] / self.samples.n,
            low=low,
            high=high,
            interval="95 % Wilson",
            floor=found["test"] / self.real["test"].n if self.real["test"].n else None,
            floor_n=self.real["test"].n or None,
            floor_note=f"{found['test']} of {self.real['test'].n} real test volumes, {known}",
            notes=(*notes("definition", f"missing: RVR below {least:.3g}"), *self._failures("train")),
            p=p,
            p_of=P_MISSING,
            warning=f"{found['']} of {self.samples.n} samples lack it, {known} do" if surprising else "",
            n=self.samples.n,
            failed=self.samples.failed,
            n_reference=n_real,
            **shared,
        )

    # ------------------------------------------------------------------------------------------- against a real split
    def _against(self, split: str, place: int, common: Common) -> Iterator[Score]:
        """`rvr_w1`, `rvr_ks` and `rvr_variance_ratio` of a region."""
        shared = {**common, "reference": split, "region": self.regions[place]}
        reason = self._no_distribution(split)
        if reason:
            yield from (self._not_run(metric, reason, shared) for metric in AGAINST_REAL if metric != "rvr_joint")
            return
        yield self._wasserstein(split, place, shared)
        x, y = self.samples.rvr[:, place], self.real[split].by_patient()[1][:, place]
        found, regions = stats.ks(x, y), len(self._known())
        yield Score(
            metric="rvr_ks",
            value=found.value,
            p=found.p,
            p_of="two-sample Kolmogorov-Smirnov, this region alone",
            notes=(*notes("caution", f"one of {regions} regions: see rvr_joint for all"), *self._failures(split)),
            **self._counts(split),
            **shared,
        )
        yield self._variance(split, place, x, y, shared)

    def _other(self, split: str) -> Vector | None:
        """The other real split by patient, for floors; None if it is too small."""
        other = self.real[OTHER[split]].by_patient()[1]
        return other if len(other) >= self.config.minimum else None

    def _no_floor(self, split: str) -> str:
        patients = len(self.real[OTHER[split]].by_patient()[0])
        return f"no floor: {patients} real {OTHER[split]} patients, at least {self.config.minimum} are needed"

    def _wasserstein(self, split: str, place: int, shared: Common) -> Score:
        """At one n for samples and floor: the distance grows with smaller n for any distribution."""
        other = self._other(split)
        n = self.samples.n if other is None else min(self.samples.n, len(other))
        part = self.samples.of_items(_subset(self.samples.items, n, self.config.seed))
        reason = self._no_distribution(split, len(part.measured))
        if reason:
            return self._not_run("rvr_w1", reason, shared)
        patients, real = self.real[split].by_patient()
        found, tails = wasserstein(part.rvr[:, place], real[:, place])
        floor, floor_note = None, self._no_floor(split)
        if other is not None:
            k = len(part.measured)
            floor = _floor(other[:, place], real[:, place], k, self.config.seed)
            few = f"{k} of {len(other)}, mean of {FLOOR_SUBSETS} subsets," if k < len(other) else f"{k}"
            floor_note = f"{few} real {OTHER[split]} patients against the same {len(patients)} real {split} patients"
        typical = float(np.median(real[:, place]))
        about = notes("context", f"{found.value / typical:.0%} of the real median" if typical > 0 else "")
        about += notes("caution", tails.caution([item.id for item in part.measured], list(patients)))
        if n < self.samples.n:
            subset = f"{n} of {self.samples.n} samples, a seeded subset: as many as real {OTHER[split]} patients"
            about += notes("counts", subset)
        return Score(
            metric="rvr_w1",
            value=found.value,
            low=max(found.low, 0.0),
            high=found.high,
            interval=HOW_JACKKNIFE,
            n=part.n,
            failed=part.failed,
            n_reference=len(patients),
            floor=floor,
            floor_n=None if floor is None else len(part.measured),
            floor_note=floor_note,
            notes=(*about, *self._failures(split)),
            **shared,
        )

    def _variance(self, split: str, place: int, x: Vector, y: Vector, shared: Common) -> Score:
        found = variance_ratio(x, y)
        if found is None:
            return self._not_run("rvr_variance_ratio", f"all real {split} patients have one value", shared)
        other = self._other(split)
        floor = None if other is None else stats.variance_ratio(other[:, place], y)
        floor_note = f"real {OTHER[split]} over real {split} patients"
        about = notes("definition", "1: as varied as the real volumes")
        about += notes("caution", "" if found.interval else "no interval: too few different values")
        return Score(
            metric="rvr_variance_ratio",
            value=found.value,
            low=found.low,
            high=found.high,
            interval="95 % delete-one jackknife of the logarithm" if found.interval else "",
            floor=floor,
            floor_n=None if other is None else len(other),
            floor_note=self._no_floor(split) if other is None else floor_note,
            notes=(*about, *self._failures(split)),
            **self._counts(split),
            **shared,
        )

    # ------------------------------------------------------------------------------------------ all regions together
    def _joint(self, split: str, common: Common) -> Iterator[Score | Replicates]:
        shared = {**common, "reference": split}
        patients, real = self.real[split].by_patient()
        known = self._known()
        places = [place for place in known if len(real) and np.ptp(real[:, place]) > 0]
        reason = self._no_distribution(split)
        if not reason and not places:
            reason = "no region varies in the real volumes" if known else "the segmenter defines none of the regions"
        if reason:
            yield self._not_run("rvr_joint", reason, shared)
            return
        found = joint(self.samples.rvr[:, places], real[:, places], self.config.seed, self.config.permutations)
        other = self._other(split)
        floor = None
        if other is not None:
            floor = joint(other[:, places], real[:, places], self.config.seed, 0).value
        left_out = [region for place, region in enumerate(self.regions) if place not in places]
        about = notes("counts", f"{len(places)} regions", f"without {', '.join(left_out)}" if left_out else "")
        names = [item.id for item in self.samples.measured]
        tails = stats.tails(found.value, found.without_x, found.without_y)
        about += notes("caution", tails.caution(names, list(patients)))
        yield Score(
            metric="rvr_joint",
            value=found.value,
            low=found.low,
            high=found.high,
            interval=HOW_JACKKNIFE,
            p=found.p,
            p_of=f"energy distance, {self.config.permutations} permutations of volumes and patients",
            floor=floor,
            floor_n=None if other is None else len(other),
            floor_note=self._no_floor(split)
            if other is None
            else f"{len(other)} real {OTHER[split]} patients against the same {len(patients)}; unbiased: about 0 at any n",
            notes=(*about, *self._failures(split)),
            **self._counts(split),
            **shared,
        )
        yield Replicates(
            metric="rvr_joint",
            value=found.value,
            samples=dict(zip(names, found.without_x.tolist(), strict=True)),
            real=dict(zip(patients, found.without_y.tolist(), strict=True)),
            **shared,
        )

    # ---------------------------------------------------------------------------------------------------------- rows
    def rows(self, generator: str) -> Iterator[CaseRow]:
        """`rvr` of every volume that has a label map: the generator's, then the real ones of each split."""
        for split, volumes in {"": self.samples, **self.real}.items():
            whose = {"split": split} if split else {"generator": generator}
            for item, ratios in zip(volumes.measured, volumes.rvr.tolist(), strict=True):
                for place in self._known():
                    where = {"case": item.id, "region": self.regions[place], "patient": item.patient or ""}
                    yield CaseRow(metric="rvr", value=ratios[place], **whose, **where)


FLOOR_SUBSETS = 100  # of the other split, if it has more patients than there are samples


def _floor(other: Vector, real: Vector, n: int, seed: int) -> float:
    """The distance of n real patients to the reference; the mean over seeded subsets if there are more."""
    if n >= len(other):
        return stats.wasserstein1(other, real)
    rng = numpy_rng(seed, "rvr", "floor")
    subsets = (rng.permutation(len(other))[:n] for _ in range(FLOOR_SUBSETS))
    return float(np.mean([stats.wasserstein1(other[part], real) for part in subsets]))


def _subset(items: Sequence[Item], n: int, seed: int) -> list[Item]:
    """`n` of the samples, the same for any order; a larger n adds to a smaller one's."""
    ordered = sorted(items, key=lambda item: item.id)
    return [ordered[i] for i in sorted(numpy_rng(seed, "rvr", "samples").permutation(len(ordered))[:n])]


def median_score(metric: str, values: Vector, about: tuple[Note, ...], shared: Common) -> Score:
    """The median of the samples with quartiles and interval."""
    found = stats.median_interval(values)
    few = f"no interval: {len(values)} samples, at least 6 are needed" if found.low is None else ""
    place = next((i for i, note in enumerate(about) if note.kind == "counts"), len(about))
    return Score(
        metric=metric,
        value=found.value,
        quartiles=(found.lower_quartile, found.upper_quartile),
        low=found.low,
        high=found.high,
        interval="" if found.low is None else HOW_MEDIAN.format(len(values)),
        notes=(*about[:place], *notes("caution", few), *about[place:]),
        **shared,
    )


def missing_below(train: Vector) -> float | None:
    """The RVR below which a region is missing: half of a low quantile of the real train volumes that have it."""
    return float(np.percentile(train[train > 0], 1)) / 2 if (train > 0).any() else None


def lost(volumes: Volumes, place: int, least: float) -> int:
    """Volumes that lack the region; one that failed lacks every one."""
    return int((volumes.rvr[:, place] < least).sum()) + volumes.failed


def _described(split: str, values: Vector) -> str:
    known = values[~np.isnan(values)]
    if not len(known):
        return ""
    found = stats.median_interval(known)
    quartiles = f"IQR {found.lower_quartile:.4g} to {found.upper_quartile:.4g}"
    return f"real {split}: median {found.value:.4g}, {quartiles}, n {len(known)}"
