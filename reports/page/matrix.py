"""Scores of anatomical regions: one small table per quantity, regions down, contestants across."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from medlord_bench.results import Score

FIRST = ("rvr", "rvr_missing", "dsc")  # the quantities to read first; the others fold away
PLANES = ("axial", "coronal", "sagittal")


@dataclass(frozen=True)
class Cell:
    """A value with its interval or, where it was not computed, why."""

    score: Score | None


@dataclass(frozen=True)
class MatrixRow:
    """beside: the floor or ceiling of the region, where one value holds for all contestants."""

    region: str
    cells: Sequence[Cell]
    beside: float | None


@dataclass(frozen=True)
class Matrix:
    """One quantity of one protocol against one reference. beside: the title of the extra column, empty for none."""

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
    return bool(score.region) and score.region not in (*PLANES, "body")


def matrices(scores: Sequence[Score]) -> list[Matrix]:
    """A matrix per quantity and reference; those to read first come first."""
    found: dict[tuple[str, str], list[Score]] = defaultdict(list)
    for score in scores:
        if is_regional(score) and score.status == "ok":
            found[score.metric, score.reference].append(score)
    made = [_matrix(metric, reference, members) for (metric, reference), members in found.items()]
    return sorted(made, key=lambda one: FIRST.index(one.metric) if one.first else len(FIRST))


def _matrix(metric: str, reference: str, scores: Sequence[Score]) -> Matrix:
    contestants = list(dict.fromkeys(score.generator for score in scores))
    by_place = {(score.region, score.generator): score for score in scores}
    regions = list(dict.fromkeys(score.region for score in scores))
    title, limits = _beside(regions, scores)
    return Matrix(
        metric=metric,
        unit=next((score.unit for score in scores if score.unit), ""),
        better=next((score.better for score in scores if score.better), ""),
        reference=reference,
        contestants=contestants,
        beside=title,
        rows=[
            MatrixRow(region, [Cell(by_place.get((region, name))) for name in contestants], limits.get(region))
            for region in regions
        ],
        first=metric in FIRST,
    )


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
