"""The interval of each contestant's rank in a quantity: how certain the order of a table is.

**Distances to a real set** (FID, KID). The covariance of the contestants' values is estimated by the jackknife. Leaving
out a real patient changes all values together: this part is a full covariance over contestants, since they share the
real set. Leaving out a sample changes one value: this part is independent. `DRAWS` normal draws with this covariance
about the measured values are ranked.

**Numbers of real cases** (adherence, reconstruction). The patients that all contestants have are drawn with replacement,
the same patients for every contestant (`DRAWS` paired bootstraps), and the contestants' medians are ranked. A patient's
number is the median of the patient's cases.

The interval is from the 2.5 % to the 97.5 % quantile of the ranks; equal values take all the ranks that they share.

Limits. The interval is of one contestant's rank, not of the whole order. It has no correction for several contestants
or quantities and no margin: "1 to 2" is no verdict that two contestants are equal; verdicts come from the paired tests
(`comparisons.py`). It contains the variation of samples and real patients, and not that of another training. In
simulations of 5 contestants with 16 units a side, 95 to 100 % of the true ranks were inside where neighbours differed by
a quarter of their standard error or more. Where they were practically equal (a thirtieth of it) it was 90 % for
distances, 95 % for cases, and 82 to 90 % for the first and the last: draws about the measured values repeat their
chance order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts.results import CaseRow, Replicates, Score
from medlord_bench.results.comparisons import LEAST_PATIENTS
from medlord_bench.results.places import Key, key_of
from medlord_bench.results.run_results import RunResults
from medlord_bench.util import seeds

DRAWS = 10_000
BATCH = 500  # bootstraps that are computed at once
TAIL = 0.025
JACKKNIFE = f"{DRAWS:,} normal draws with the jackknife's covariance over patients and samples"
BOOTSTRAP = f"{DRAWS:,} paired bootstraps over patients"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranks:
    """The rank intervals of one quantity. intervals: contestant -> first and last rank; empty with a `reason`.

    of: number of contestants that are ranked. how: how the intervals were made.
    """

    intervals: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    of: int = 0
    how: str = ""
    reason: str = ""


def ranks(run: RunResults) -> dict[Key, Ranks]:
    """The ranks in every quantity that has a better direction and a value. Controls have no rank."""
    values: dict[Key, dict[str, Score]] = defaultdict(dict)
    for score in run.scores:
        if score.better and score.status == "ok" and score.value is not None and score.generator in run.ranked:
            values[key_of(score)][score.generator] = score
    distances: dict[Key, dict[str, Replicates]] = defaultdict(dict)
    for one in run.replicates:
        key = Key(one.metric, one.region, one.reference, one.protocol, one.dataset)
        distances[key][one.generator] = one
    cases, protocols = _by_patient(run.rows), _protocols(run.scores)
    return {
        key: _ranks(key, scores, distances.get(key, {}), cases.get((key.metric, key.region), {}), protocols[key.metric])
        for key, scores in values.items()
    }


def _protocols(scores: Iterable[Score]) -> Mapping[str, set[tuple[str, str]]]:
    """Metric -> the protocols and references that it was measured under; case rows do not name theirs."""
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for score in scores:
        if score.status == "ok":
            found[score.metric].add((score.protocol, score.dataset))
    return found


def _ranks(
    key: Key,
    scores: Mapping[str, Score],
    distances: Mapping[str, Replicates],
    cases: Mapping[str, Mapping[str, float]],
    protocols: Iterable[tuple[str, str]],
) -> Ranks:
    names = list(scores)
    if len(names) < 2:
        return Ranks(of=len(names), reason="a single contestant has a value")
    lower = scores[names[0]].better == "lower"
    seed = ("rank interval", *key)
    if any(name in distances for name in names):
        missing = [name for name in names if name not in distances]
        if missing:
            return Ranks(of=len(names), reason=f"{missing[0]} has no leave-one-out values")
        own = [distances[name] for name in names]
        if any(one.real.keys() != own[0].real.keys() for one in own):
            return Ranks(of=len(names), reason="the contestants were measured against different real volumes")
        if len(own[0].real) < 2 or any(len(one.samples) < 2 for one in own):
            return Ranks(of=len(names), reason="fewer than 2 samples or real patients")
        return _intervals(names, _normal(own, seed), lower, JACKKNIFE)
    if not any(name in cases for name in names):
        return Ranks(of=len(names), reason="the metric gives neither leave-one-out values nor numbers by patient")
    if len(set(protocols)) > 1:
        return Ranks(of=len(names), reason="several protocols measured it, and numbers by case do not name theirs")
    shared = [p for p in cases.get(names[0], {}) if all(p in cases.get(name, {}) for name in names)]
    if len(shared) < LEAST_PATIENTS:
        return Ranks(of=len(names), reason=f"{len(shared)} shared patients, at least {LEAST_PATIENTS} are needed")
    table = np.array([[cases[name][patient] for name in names] for patient in shared])
    return _intervals(names, _medians(table, seed), lower, BOOTSTRAP)


def _by_patient(rows: Iterable[CaseRow]) -> Mapping[tuple[str, str], Mapping[str, Mapping[str, float]]]:
    """(metric, region) -> contestant -> patient -> the median of the patient's cases."""
    found: dict[tuple[str, str], dict[str, dict[str, dict[str, float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(dict))
    )
    for row in rows:
        if row.patient and row.generator:
            found[row.metric, row.region][row.generator][row.patient][row.case] = row.value
    return {
        key: {
            name: {patient: _median(list(cases.values())) for patient, cases in patients.items()}
            for name, patients in contestants.items()
        }
        for key, contestants in found.items()
    }


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if len(values) > 1 else values[0]


def _normal(members: Sequence[Replicates], seed: tuple[Any, ...]) -> Floats:
    """Draws (DRAWS, contestants) about the measured values."""
    units = list(members[0].real)
    real = np.array([[one.real[unit] for unit in units] for one in members])
    real -= real.mean(axis=1, keepdims=True)
    covariance = (len(units) - 1) / len(units) * real @ real.T
    for place, one in enumerate(members):
        own = np.array(list(one.samples.values()))
        covariance[place, place] += (len(own) - 1) / len(own) * ((own - own.mean()) ** 2).sum()
    variances, directions = np.linalg.eigh(covariance)
    spread = directions * np.sqrt(variances.clip(min=0))
    drawn = seeds.numpy_rng(*seed).standard_normal((DRAWS, len(members)))
    found: Floats = np.array([one.value for one in members]) + drawn @ spread.T
    return found


def _medians(table: Floats, seed: tuple[Any, ...]) -> Floats:
    """Medians (DRAWS, contestants) of patients drawn with replacement. table: (patients, contestants)."""
    finite = np.abs(table[np.isfinite(table)]).max(initial=1.0)
    table = np.nan_to_num(table, nan=0.0, posinf=10 * finite, neginf=-10 * finite)  # infinite ones rank last or first
    rng = seeds.numpy_rng(*seed)
    parts = [np.median(table[rng.integers(0, len(table), (BATCH, len(table)))], axis=1) for _ in range(DRAWS // BATCH)]
    return np.concatenate(parts)


def _intervals(names: Sequence[str], draws: Floats, lower: bool, how: str) -> Ranks:
    ordered = draws if lower else -draws
    found = {}
    for place, name in enumerate(names):
        own = ordered[:, place, None]
        before = 1 + (ordered < own).sum(axis=1)
        behind = (ordered <= own).sum(axis=1)
        found[name] = (
            int(np.quantile(before, TAIL, method="inverted_cdf")),
            int(np.quantile(behind, 1 - TAIL, method="inverted_cdf")),
        )
    return Ranks(found, len(names), how)
