"""From the table of cases to scores, with the segmenter's ceilings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medlord_bench.contracts import Item
from medlord_bench.contracts.results import CaseRow, Note, Score, notes
from medlord_bench.overlap.cases import (
    NAMES,
    Name,
    Pooled,
    Summary,
    Table,
    finite,
    masks_of,
    median_fields,
    pool,
    summarise,
    tabulate,
)

Common = Mapping[str, Any]
CEILINGS = {"dsc_ceiling_real": "real test images", "dsc_ceiling_reconstruction": "autoencoder reconstructions"}


@dataclass(frozen=True)
class Sources:
    """The conditional samples, and the sources of the segmenter's own ceiling: real images, reconstructions."""

    samples: Table
    ceilings: Mapping[str, Table]
    regions: Sequence[str]
    segmenter: str
    tolerance: float

    @classmethod
    def of(
        cls, items: Mapping[str, Sequence[Item]], regions: Sequence[str], segmenter: str, tolerance: float
    ) -> Sources:
        samples, real, reconstructions = (items[s] for s in ("conditional:test", "real:test", "reconstructions"))
        masks = masks_of(samples, real, reconstructions)
        tables = [tabulate(found, regions, masks) for found in (samples, real, reconstructions)]
        return cls(tables[0], dict(zip(CEILINGS, tables[1:], strict=True)), regions, segmenter, tolerance)

    def reason(self) -> str:
        """Why nothing can be measured; empty if something can."""
        items, failed = self.samples.items, self.samples.failed()
        if not items:
            return "the generator has no conditional samples"
        if failed == len(items):
            first = next(item.failed for item in items if item.failed)
            return f"all {failed} conditional samples failed, the first: {first}"
        if not self._measured():
            return "no mask contains any of the regions: all are empty" if not self._unknown() else ""
        return ""

    def not_run(self, reason: str, common: Common) -> list[Score]:
        counts = {"n": len(self.samples.items), "failed": self.samples.failed(), **common}
        return [Score(metric=name, status="not_run", reason=reason, **counts) for name in NAMES]

    # ------------------------------------------------------------------------------------------------- contents
    def _kinds(self, place: int) -> set[str]:
        return set(self.samples.kinds[:, place].tolist())

    def _measured(self) -> list[int]:
        """Regions that some mask contains and the segmenter defines."""
        places = range(len(self.regions))
        return [place for place in places if place not in self._unknown() and self._is_held(place)]

    def _is_held(self, place: int) -> bool:
        return bool(self._kinds(place) & {"measured", "missed", "failed"})

    def _unknown(self) -> dict[int, str]:
        """Regions that cannot be compared: place -> reason."""
        found = {}
        for place in range(len(self.regions)):
            kinds = self._kinds(place)
            if "unknown to mask" in kinds:
                found[place] = "the masks of the data set do not define it"
            elif "unknown to segmenter" in kinds:
                found[place] = f"the segmenter {self.segmenter} does not define it"
        return found

    # -------------------------------------------------------------------------------------------------------- scores
    def scores(self, common: Common, about: Sequence[Note]) -> Iterator[Score]:
        """Scores of all regions, then of each; then the ceilings; then regions that could not be compared. about: notes
        of every score."""
        for name in NAMES:
            yield self._pooled(name, common, about)
            for place in self._measured():
                yield self._region(name, place, common, about)
        for metric, table in self.ceilings.items():
            yield from self._ceiling_scores(metric, table, common)
        yield from self._left_out(common)

    def _region(self, name: Name, place: int, common: Common, about: Sequence[Note]) -> Score:
        counts = self.samples.counts(place)
        shared = {
            **common,
            "metric": name,
            "region": self.regions[place],
        }
        found = summarise(self.samples, place, name)
        shared["failed"] = counts["failed"]
        if found is None:
            return Score(status="not_run", reason="the voxel size is unknown", n=len(self.samples.items), **shared)
        shared |= {"n": found.cases, "warning": self._missed(counts["missed"], found.cases)}
        ceiling, ceiling_note = self._ceiling(name, place)
        shared |= {"ceiling": ceiling, "ceiling_note": ceiling_note}
        shared["notes"] = (*self._notes(name, place, found, counts), *about)
        if not math.isfinite(found.median.value):
            lost = counts["missed"] + counts["false positive"] + counts["failed"]
            return Score(status="not_run", reason=f"infinite: {lost} of {found.cases} cases lack a surface", **shared)
        return Score(**median_fields(found), **shared)

    def _notes(self, name: Name, place: int, found: Summary, counts: Mapping[str, int]) -> Iterator[Note]:
        if found.cases > found.patients:
            yield from notes("counts", f"{found.cases} cases of {found.patients} patients, a patient counts once")
        if counts["absent"]:
            yield from notes("counts", f"{counts['absent']} cases lack it in mask and sample and are left out of n")
        if counts["missed"]:
            yield from notes("counts", f"{counts['missed']} missed")
        if counts["false positive"]:
            yield from notes("counts", f"{counts['false positive']} false positives (the mask lacks it)")
        spacings = [item.spacing for item in self.samples.items if item.spacing is not None]
        unknown = len(self.samples.items) - len(spacings)
        if name != "dsc" and unknown:
            yield from notes("counts", f"{unknown} cases without a known voxel size are left out")
        if name == "nsd":
            coarse = any(max(spacing) > self.tolerance for spacing in spacings)
            less = ", which is less than a voxel" if coarse else ""
            yield from notes("definition", f"within {self.tolerance:g} mm{less}")
        if found.median.low is None:
            yield from notes("caution", f"no interval: {found.patients} patients, at least 6 are needed")

    def _missed(self, missed: int, cases: int) -> str:
        return f"{missed} of {cases} samples lack this region of their mask" if missed else ""

    def _pooled(self, name: Name, common: Common, about: Sequence[Note]) -> Score:
        shared = {**common, "metric": name}
        shared |= {"n": len(self.samples.items), "failed": self.samples.failed()}
        found = pool(self.samples, self._measured(), name)
        if found is None:
            reason = "the voxel size is unknown" if self._measured() else "no region could be compared"
            return Score(status="not_run", reason=reason, **shared)
        if not math.isfinite(found.value):
            return Score(status="not_run", reason="infinite: a region is missed in half of the cases or more", **shared)
        own = list(notes("definition", f"mean of the medians of {len(self._measured())} regions"))
        if self._unknown():
            own += notes("counts", f"without {', '.join(self.regions[place] for place in self._unknown())}")
        if found.low is None:
            own += notes("caution", f"no interval: {found.patients} patients, at least 6 are needed")
        lost = sum(self.samples.counts(place)["missed"] for place in self._measured())
        if lost:
            shared["warning"] = f"{lost} regions of masks are missed in their samples, over all samples"
        ceilings = {metric: pool(table, self._measured(), name) for metric, table in self.ceilings.items()}
        shared["ceiling"], shared["ceiling_note"] = _ceiling_of(ceilings)
        how = "" if found.low is None else f"95 % percentile bootstrap of {found.patients} patients"
        shared |= {"interval": how, "notes": (*own, *about)}
        return Score(value=found.value, low=finite(found.low), high=finite(found.high), **shared)

    def _ceiling(self, name: Name, place: int) -> tuple[float | None, str]:
        """The segmenter's score on real test images, and in the note also on reconstructions."""
        return _ceiling_of({metric: summarise(table, place, name) for metric, table in self.ceilings.items()})

    def _ceiling_scores(self, metric: str, table: Table, common: Common) -> Iterator[Score]:
        """The ceilings of DSC as rows of their own; none for a generator that has no autoencoder."""
        for place in self._measured():
            found, counts = summarise(table, place, "dsc"), table.counts(place)
            if found is not None:
                shared = {**common, "metric": metric, "region": self.regions[place]}
                shared |= {"n": found.cases, "failed": counts["failed"]}
                missed = f"{counts['missed']} missed" if counts["missed"] else ""
                about = notes("definition", f"of {CEILINGS[metric]}, by {self.segmenter}")
                yield Score(notes=(*about, *notes("counts", missed)), **median_fields(found), **shared)

    def _left_out(self, common: Common) -> Iterator[Score]:
        """One `not_run` for each reason, naming its regions."""
        reasons = self._unknown()
        for place in range(len(self.regions)):
            if place not in reasons and not self._is_held(place):
                invented = self.samples.counts(place)["false positive"]
                reasons[place] = "no mask contains it" + (f"; {invented} samples have it" * bool(invented))
        for reason in dict.fromkeys(reasons.values()):
            regions = ", ".join(self.regions[place] for place, own in reasons.items() if own == reason)
            counts = {"n": len(self.samples.items), "failed": self.samples.failed()}
            yield Score(metric="dsc", region=regions, status="not_run", reason=reason, **counts, **common)

    # ---------------------------------------------------------------------------------------------------------- rows
    def rows(self, generator: str) -> Iterator[CaseRow]:
        """Every case that has a score; a missed region's HD95 is infinite."""
        for name in NAMES:
            for row, item in enumerate(self.samples.items):
                for place in self._measured():
                    value = float(self.samples.scores[name][row, place])
                    if not math.isnan(value):
                        where = {"case": item.id, "region": self.regions[place], "patient": item.patient or ""}
                        yield CaseRow(metric=name, generator=generator, value=value, **where)


def _ceiling_of(found: Mapping[str, Summary | Pooled | None]) -> tuple[float | None, str]:
    values = {
        CEILINGS[metric]: one.value if isinstance(one, Pooled) else one.median.value
        for metric, one in found.items()
        if one is not None
    }
    note = "; ".join(f"the segmenter on {what}: {value:.3g}" for what, value in values.items())
    return finite(values.get(CEILINGS["dsc_ceiling_real"])), note
