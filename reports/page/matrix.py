"""Scores of anatomical regions: one small table per quantity, regions down, contestants across."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from types import MappingProxyType

from medlord_bench.contracts.metrics import Quantity
from medlord_bench.contracts.results import CaseRow, Score

PLANES = ("axial", "coronal", "sagittal")
BODY = "body"
NO_SCORE = "no score was written"


@dataclass(frozen=True)
class Cell:
    """A value with its interval, or the reason why it was not computed."""

    score: Score | None
    reason: str = ""


@dataclass(frozen=True)
class MatrixRow:
    """beside: the floor, the ceiling or the real volumes' own value of the region, one for all contestants."""

    region: str
    cells: Sequence[Cell]
    beside: float | None


@dataclass(frozen=True)
class Matrix:
    """One quantity of one protocol against one reference. beside: title of the extra column, empty for none."""

    metric: str
    unit: str
    better: str
    reference: str
    contestants: Sequence[str]
    beside: str
    rows: Sequence[MatrixRow]
    first: bool


def is_regional(score: Score) -> bool:
    """Whether a score is of an anatomical region, and not of the whole or of a plane."""
    return bool(score.region) and score.region not in (*PLANES, BODY)


def matrices(
    scores: Sequence[Score], rows: Sequence[CaseRow] = (), quantities: Mapping[str, Quantity] = MappingProxyType({})
) -> list[Matrix]:
    """A matrix per quantity and reference; those to read first come first.

    scores: of one protocol, including those that were not run. rows: of cases, for the values of real volumes; they
    must be of the same protocol.
    """
    found: dict[tuple[str, str], list[Score]] = defaultdict(list)
    for score in scores:
        if is_regional(score) and score.status == "ok":
            found[score.metric, score.reference].append(score)
    absent: dict[tuple[str, str, str], list[Score]] = defaultdict(list)
    for score in scores:
        if score.status == "not_run":
            absent[score.metric, score.reference, score.generator].append(score)
    real = _real(rows)
    first = [name for name, one in quantities.items() if one.open_by_region]
    made = [_matrix(key, members, absent, real.get(key[0], {}), key[0] in first) for key, members in found.items()]
    return sorted(made, key=lambda one: first.index(one.metric) if one.first else len(first))


def _real(rows: Sequence[CaseRow]) -> dict[str, dict[str, float]]:
    """Metric -> region -> median of the real train patients, each with the median of the patient's volumes."""
    found: dict[tuple[str, str], dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:  # every contestant's reduction repeats them: each case counts once
        if row.split == "train":
            found[row.metric, row.region][row.patient or row.case][row.case] = row.value
    medians: dict[str, dict[str, float]] = defaultdict(dict)
    for (metric, region), patients in found.items():
        medians[metric][region] = median(median(cases.values()) for cases in patients.values())
    return medians


def _matrix(
    key: tuple[str, str],
    scores: Sequence[Score],
    absent: Mapping[tuple[str, str, str], Sequence[Score]],
    real: Mapping[str, float],
    first: bool,
) -> Matrix:
    contestants = list(dict.fromkeys(score.generator for score in scores))
    by_place = {(score.region, score.generator): score for score in scores}
    regions = list(dict.fromkeys(score.region for score in scores))
    title, limits = ("real train", real) if real else _beside(regions, scores)

    def cell(region: str, name: str) -> Cell:
        score = by_place.get((region, name))
        return Cell(score, "" if score else _reason(region, absent.get((*key, name), ())))

    return Matrix(
        metric=key[0],
        unit=next((score.unit for score in scores if score.unit), ""),
        better=next((score.better for score in scores if score.better), ""),
        reference=key[1],
        contestants=contestants,
        beside=title,
        rows=[
            MatrixRow(region, [cell(region, name) for name in contestants], limits.get(region)) for region in regions
        ],
        first=first,
    )


def _reason(region: str, absent: Sequence[Score]) -> str:
    """Why a region has no value. One score may name several regions; one without a region applies to all."""
    for score in absent:
        if not score.region or region in score.region.split(", "):
            return score.reason or "no reason was given"
    return NO_SCORE


def _beside(regions: Sequence[str], scores: Sequence[Score]) -> tuple[str, dict[str, float]]:
    """The ceiling, or the floor, of each region: only where it is the same for every contestant."""
    for name in ("ceiling", "floor"):
        limits: dict[str, set[float]] = {region: set() for region in regions}
        for score in scores:
            if (value := getattr(score, name)) is not None:
                limits[score.region].add(float(f"{value:.6g}"))
        if any(limits.values()) and all(len(values) < 2 for values in limits.values()):
            return name, {region: values.pop() for region, values in limits.items() if values}
    return "", {}
