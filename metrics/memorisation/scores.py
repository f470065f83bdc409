"""From the nearest training volumes to scores, and the pairs for visual review."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medlord_bench import stats
from medlord_bench.contracts.results import CaseRow, Score, notes

from .audit import SAME_PATIENT_DISTANCE, Match, Threshold

PAIRS_FOR_REVIEW = 6  # pairs for review
WILSON = "95 % Wilson interval"
RELATIVE_DISTANCE = (
    "relative distance: 1 - correlation with the nearest training patient over its mean for the next nearest, or the "
    "agreeing patches of the next patients over those of the nearest on the same scale, whichever is smaller"
)
PART = "part"  # region of the pairs that the local stage found


def median_of(correlations: Sequence[float]) -> dict[str, Any]:
    """The fields of a score that is the median over samples."""
    found = stats.median_interval(correlations)
    return {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "interval": "" if found.low is None else f"95 % order statistics of the median of {len(correlations)} samples",
        "quartiles": (found.lower_quartile, found.upper_quartile),
    }


@dataclass(frozen=True)
class Side:
    """Volumes, each with its nearest training volume."""

    ids: Sequence[str]
    matches: Sequence[Match]

    def copies(self, threshold: Threshold) -> list[Match]:
        return [one for one in self.matches if one.relative < threshold.value]


@dataclass(frozen=True)
class Audit:
    """Samples and held-out real volumes against the training set.

    training: ids. patients: the patient of each training volume, twins merged. twins: pairs of (nearly) identical
    training volumes of two patients. single: one volume per patient everywhere, so that volumes are
    independent. weak_below: number of training patients.
    """

    samples: Side
    held_out: Side
    training: Sequence[str]
    patients: Sequence[str]
    twins: Sequence[tuple[str, str]]
    threshold: Threshold
    single: bool
    weak_below: int

    def scores(self, common: Mapping[str, Any]) -> Iterator[Score]:
        """`copy_rate`, `memorised_share`, `nearest_correlation`. common: with "n" samples, including "failed" ones."""
        shared = {**common, "n_reference": len(set(self.patients))}
        yield self._copy_rate(shared)
        yield self._memorised_share(shared)
        yield self._nearest_correlation(shared)

    def _copy_rate(self, shared: Mapping[str, Any]) -> Score:
        threshold, n = self.threshold, shared["n"]
        found = self.samples.copies(threshold)
        copies, by_whole = len(found), sum(one.whole.relative < threshold.value for one in found)
        low, high = stats.wilson(copies, n)
        floor = self._held_out_rate()
        p = threshold.p_value(copies, len(self.samples.ids)) if self.single else None
        expected = max(threshold.nominal, floor.get("floor", 0.0))
        warning = ""
        if low > expected:
            warning = (
                f"{copies} of {n} samples are closer to one training patient than unseen patients are "
                f"({expected:.1%} of these would be): look at the pairs"
            )
        return Score(
            metric="copy_rate",
            value=copies / n,
            low=low,
            high=high,
            interval=WILSON,
            p=p,
            p_of="" if p is None else "at least as many copies among unseen patients: exact, beta-binomial",
            notes=(
                *notes("definition", RELATIVE_DISTANCE, self._threshold_note()),
                *notes(
                    "counts",
                    f"copies: {by_whole} by the whole volume, {copies - by_whole} by parts or after a change alone"
                    if copies
                    else "",
                ),
                *notes("caution", *self._training_cautions()),
            ),
            warning="; ".join(filter(None, (warning, self._leaks()))),
            **floor,
            **shared,
        )

    def _held_out_rate(self) -> dict[str, Any]:
        n = len(self.held_out.ids)
        if not n:
            return {"floor_note": "no floor: no held-out real volumes (val, test)"}
        called = len(self.held_out.copies(self.threshold))
        low, high = stats.wilson(called, n)
        note = f"{called} of {n} held-out real volumes (val and test) are classified as copies, {WILSON} {low:.3f} to {high:.3f}"
        return {"floor": called / n, "floor_n": n, "floor_note": note}

    def _threshold_note(self) -> str:
        threshold = self.threshold
        rate = f"rank {threshold.rank} of {threshold.n} left-out training volumes"
        if threshold.capped:
            return (
                f"a copy is below relative distance {threshold.value:.3g}, the largest allowed; real volumes are "
                f"further apart, so the nominal rate is at most {threshold.nominal:.1%} ({rate})"
            )
        return f"a copy is below relative distance {threshold.value:.3g}; nominal rate {threshold.nominal:.1%} ({rate})"

    def _training_cautions(self) -> Iterator[str]:
        patients = len(set(self.patients))
        if patients < self.weak_below:
            yield f"weak: {patients} training patients are too few to measure the similarity of patients"
        if not self.single:
            yield "several volumes per patient, so nominal rate and interval are approximate and there is no p"
        if self.twins:
            pairs = ", ".join(f"{a} and {b}" for a, b in self.twins[:3])
            yield f"{len(self.twins)} pairs of identical volumes of two patients, counted as one: {pairs}"

    def _leaks(self) -> str:
        same = [
            f"{id} and {self.training[one.whole.training]}"
            for id, one in zip(self.held_out.ids, self.held_out.matches, strict=True)
            if one.whole.relative <= SAME_PATIENT_DISTANCE
        ]
        if not same:
            return ""
        return f"{len(same)} held-out volumes are (nearly) identical to a training volume: {', '.join(same[:3])}"

    def _memorised_share(self, shared: Mapping[str, Any]) -> Score:
        copied = {self.patients[one.nearest.training] for one in self.samples.copies(self.threshold)}
        patients = len(set(self.patients))
        low, high = stats.wilson(len(copied), patients)
        return Score(
            metric="memorised_share",
            value=len(copied) / patients,
            low=low,
            high=high,
            interval=f"{WILSON} over training patients",
            floor_note="see copy_rate",
            notes=(
                *notes(
                    "counts", f"{len(copied)} of {patients} training patients have a copy among {shared['n']} samples"
                ),
                *notes("caution", "grows with the number of samples"),
            ),
            **shared,
        )

    def _nearest_correlation(self, shared: Mapping[str, Any]) -> Score:
        samples, held_out = self.samples.matches, self.held_out.matches
        floor: dict[str, Any] = {"floor_note": "no floor: no held-out real volumes (val, test)"}
        p = None
        if held_out:
            floor = {
                "floor": stats.median_interval([one.whole.correlation for one in held_out]).value,
                "floor_n": len(held_out),
                "floor_note": "median of held-out real volumes (val and test)",
            }
            if self.single:
                from scipy.stats import mannwhitneyu

                near, far = ([one.relative for one in side] for side in (samples, held_out))
                p = float(mannwhitneyu(near, far, alternative="less").pvalue)
        return Score(
            metric="nearest_correlation",
            p=p,
            p_of="" if p is None else "samples no nearer than held-out patients (relative distance): Mann-Whitney",
            notes=(
                *notes(
                    "definition", "median over samples of the correlation of detail with the nearest training volume"
                ),
                *notes("counts", f"{shared['failed']} failed samples have none" if shared["failed"] else ""),
            ),
            **median_of([one.whole.correlation for one in samples]),
            **floor,
            **shared,
        )

    def rows(self, generator: str) -> Iterator[CaseRow]:
        """The rows of `metric`'s docstring: three values of each sample; then the `copy_pair`s, the nearest first."""
        pairs = list(zip(self.samples.ids, self.samples.matches, strict=True))
        for id, one in pairs:
            values: list[tuple[str, float, int]] = [
                ("nearest_correlation", one.whole.correlation, one.whole.training),
                ("relative_distance", one.relative, one.nearest.training),
            ]
            if one.part:
                values.append(("agreeing_patches", one.part.patches, one.part.training))
            for metric, value, training in values:
                yield CaseRow(metric=metric, generator=generator, case=id, against=self.training[training], value=value)
        for id, one in sorted(pairs, key=lambda pair: pair[1].relative)[:PAIRS_FOR_REVIEW]:
            yield CaseRow(
                metric="copy_pair",
                generator=generator,
                case=id,
                region=PART if one.kind == "part" else "",
                against=self.training[one.nearest.training],
                value=one.relative,
            )
