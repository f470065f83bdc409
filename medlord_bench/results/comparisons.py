"""Which generator is better, and is the difference significant? Paired tests between all contestants of a run, with
Holm's correction.

There are two ways to pair. Distances to a real set (FID, KID) share that set: the effects of leaving out a real patient
are paired (`Replicates`). Numbers of real cases (adherence, reconstruction) are compared case by case (`CaseRow`s that
name a patient). "Better" and "tie" come from these tests, never from overlapping intervals.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil, log2
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import ConfigDict, Field, WithJsonSchema

from medlord_bench import stats
from medlord_bench.contracts import FrozenConfig, FrozenResult
from medlord_bench.contracts.metrics import Quantity
from medlord_bench.contracts.results import CaseRow, Replicates, Score
from medlord_bench.contracts.validation import read_json
from medlord_bench.util.files import write_text

ALPHA = 0.05
LEAST_PATIENTS = 6  # with fewer pairs no signed-rank test reaches 5 %
FILE = "comparisons.json"
# In JSON an infinite number is a text, for lack of another way.
Extended = Annotated[float, WithJsonSchema({"anyOf": [{"type": "number"}, {"enum": ["Infinity", "-Infinity"]}]})]
Verdict = Literal["first", "second", "tie", "equivalent"]


class Comparison(FrozenResult):
    """Two contestants in one metric, region and reference. difference: the first's value minus the second's; infinite
    if one of them misses a structure in most cases."""

    model_config = ConfigDict(ser_json_inf_nan="strings")

    metric: str
    protocol: str
    dataset: str
    region: str = ""
    reference: str = ""
    first: str
    second: str
    difference: Extended
    low: Extended | None = None
    high: Extended | None = None
    how: str = Field(description="how the difference, its interval and p were made")
    p: float = Field(description="p-value of no difference, uncorrected")
    p_holm: float = Field(
        description="corrected for all comparisons in this metric against this reference: of the whole, or of all regions"
    )
    n: int = Field(description="samples a side, or patients")
    verdict: Verdict = Field(description="the better one, a tie, or equivalent within `margin`")
    margin: float | None = None
    p_equivalence: float | None = None
    n_needed: int | None = Field(None, description="for a tie: units needed to detect a difference of this size")
    detectable: float | None = Field(
        None, description="for a tie: the smallest difference that this n detects at 5 % with a power of 80 %"
    )


class ComparisonsFile(FrozenConfig):
    """`results/comparisons.json`. not_compared: pairs that could not be compared, and why."""

    comparisons: tuple[Comparison, ...] = ()
    not_compared: tuple[str, ...] = ()


def compare(
    scores: Sequence[Score],
    rows: Sequence[CaseRow],
    replicates: Sequence[Replicates],
    quantities: Mapping[str, Quantity],
) -> ComparisonsFile:
    """Compares every pair of contestants in every quantity that can be paired. quantities: by name, for their
    margins."""
    found: list[_Raw] = []
    missed: list[str] = []
    for pair in (*_distances(replicates), *_cases(scores, rows, quantities)):
        (missed if isinstance(pair, str) else found).append(pair)  # type: ignore[arg-type]
    families: dict[tuple[str, str, str, bool], list[_Raw]] = defaultdict(list)
    for raw in found:  # regions are many: they would hide what the whole shows
        families[raw.metric, raw.protocol, raw.reference, bool(raw.region)].append(raw)
    done = [one for family in families.values() for one in _corrected(family)]
    return ComparisonsFile(comparisons=tuple(done), not_compared=tuple(missed))


@dataclass(frozen=True)
class _Raw:
    """A comparison before correction for multiple comparisons."""

    metric: str
    protocol: str
    dataset: str
    region: str
    reference: str
    first: str
    second: str
    lower_is_better: bool
    difference: float
    low: float | None
    high: float | None
    how: str
    p: float
    n: int
    error: float | None = None
    equivalence: stats.Tost | None = None
    by_ranks: bool = False


def _distances(replicates: Sequence[Replicates]) -> Iterator[_Raw | str]:
    """Distances to one real set. Single planes are left out: their mean is compared."""
    groups: dict[tuple[str, str, str, str], list[Replicates]] = defaultdict(list)
    for one in replicates:
        if not one.region:
            groups[one.metric, one.protocol, one.dataset, one.reference].append(one)
    for (metric, protocol, dataset, reference), members in groups.items():
        for a, b in combinations(members, 2):
            if a.real.keys() != b.real.keys():
                yield (
                    f"{metric} ({reference}) of {a.generator} and {b.generator}: measured against different real "
                    "volumes, since the numbers of usable samples differ"
                )
                continue
            squared = a.squared and b.squared
            found = stats.paired_jackknife(_left_out(a, a), _left_out(b, a), squared)
            how = "jackknife, paired on the real patients" + (", of the roots" if squared else "")
            where = (metric, protocol, dataset, "", reference, a.generator, b.generator, a.better == "lower")
            n = min(len(a.samples), len(b.samples))
            yield _Raw(*where, found.value, found.low, found.high, how, found.p, n, found.error)


@dataclass(frozen=True)
class _LeftOut:
    value: float
    without_x: stats.Vector
    without_y: stats.Vector


def _left_out(of: Replicates, order: Replicates) -> _LeftOut:
    """The real units in the order of `order`."""
    real = np.array([of.real[unit] for unit in order.real])
    return _LeftOut(of.value, np.array(list(of.samples.values())), real)


def _cases(
    scores: Sequence[Score], rows: Sequence[CaseRow], quantities: Mapping[str, Quantity]
) -> Iterator[_Raw | str]:
    """Numbers of real cases; a patient's number is the median of the patient's cases."""
    by_patient: dict[tuple[str, str, str], dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row.patient:
            by_patient[row.metric, row.region, row.generator][row.patient][row.case] = row.value
    groups: dict[tuple[str, str, str, str, str], list[Score]] = defaultdict(list)
    for score in scores:
        if score.better and (score.metric, score.region, score.generator) in by_patient:
            groups[score.metric, score.protocol, score.dataset, score.region, score.reference].append(score)
    for (metric, protocol, dataset, region, reference), members in groups.items():
        for a, b in combinations(members, 2):
            ours, theirs = (by_patient[metric, region, one.generator] for one in (a, b))
            differences = [_median_difference(ours[patient], theirs[patient]) for patient in ours if patient in theirs]
            known = np.array([value for value in differences if value is not None])
            names = f"{metric} {region}".strip()
            if len(known) < LEAST_PATIENTS:
                yield (
                    f"{names} of {a.generator} and {b.generator}: {len(known)} shared patients, "
                    f"at least {LEAST_PATIENTS} are needed"
                )
                continue
            found = stats.wilcoxon_paired(known)
            how = "Hodges-Lehmann difference of paired patients, Wilcoxon signed-rank"
            where = (metric, protocol, dataset, region, reference, a.generator, b.generator, a.better == "lower")
            margin = quantities[metric].margin
            same = None if margin is None else stats.tost(known, margin)
            finite = known[np.isfinite(known)]
            error = float(finite.std(ddof=1) / np.sqrt(len(finite))) if len(finite) > 1 else None
            yield _Raw(*where, found.estimate, found.low, found.high, how, found.p, found.n, error, same, True)


def _median_difference(ours: dict[str, float], theirs: dict[str, float]) -> float | None:
    """Over a patient's shared cases; two infinite distances are no difference."""
    apart = [0.0 if ours[case] == theirs[case] else ours[case] - theirs[case] for case in ours if case in theirs]
    return float(np.median(apart)) if apart else None


def _corrected(family: Sequence[_Raw]) -> Iterator[Comparison]:
    """Verdicts of one metric against one reference, p-values corrected for the number of comparisons."""
    corrected = stats.holm([raw.p for raw in family])
    equivalences = [raw.equivalence for raw in family]
    same = dict(
        zip(
            (i for i, one in enumerate(equivalences) if one is not None),
            stats.holm([one.p for one in equivalences if one is not None]).tolist(),
            strict=True,
        )
    )
    for place, (raw, p_holm) in enumerate(zip(family, corrected.tolist(), strict=True)):
        verdict: Verdict = "tie"
        if p_holm <= ALPHA and raw.difference != 0:
            verdict = "first" if (raw.difference < 0) == raw.lower_is_better else "second"
        elif same.get(place, 1.0) <= ALPHA:
            verdict = "equivalent"
        yield Comparison(
            **{name: getattr(raw, name) for name in ("metric", "protocol", "dataset", "region", "reference")},
            first=raw.first,
            second=raw.second,
            difference=raw.difference,
            low=raw.low,
            high=raw.high,
            how=raw.how,
            p=raw.p,
            p_holm=p_holm,
            n=raw.n,
            verdict=verdict,
            margin=None if raw.equivalence is None else raw.equivalence.margin,
            p_equivalence=same.get(place),
            n_needed=_needed(raw, len(family)) if verdict == "tie" else None,
            detectable=_detectable(raw) if verdict == "tie" else None,
        )


def _needed(raw: _Raw, tests: int) -> int | None:
    """Units that would decide a tie. A signed-rank test of n pairs has no p below 2 / 2^n: with fewer than this allows, no
    difference passes the correction for `tests` comparisons."""
    if raw.error is None or not raw.error > 0 or raw.difference == 0 or not np.isfinite(raw.difference):
        return None
    least = ceil(1 + log2(tests / ALPHA)) if raw.by_ranks else 0
    return max(stats.n_needed(raw.difference, raw.error, raw.n) or 0, least)


def _detectable(raw: _Raw) -> float | None:
    if raw.error is None or not raw.error > 0 or raw.n < 2:
        return None
    return stats.detectable_difference(raw.error, raw.n)


def write(folder: Path, found: ComparisonsFile) -> None:
    """Write `comparisons.json` into `folder`, atomically."""
    write_text(folder / FILE, found.model_dump_json(indent=1))


def read(folder: Path) -> ComparisonsFile:
    """The file written by `write`; empty for a run of one contestant, or of a release without comparisons."""
    path = folder / FILE
    return read_json(ComparisonsFile, path) if path.exists() else ComparisonsFile()
