"""Numbers as cells: decimals of a column, spread, verdict of the paired tests, and the reason of a dash."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev

from medlord_bench.contracts.metrics import Quantity
from medlord_bench.contracts.results import CaseRow, Score
from medlord_bench.results.places import Key, Place, key_of, places
from medlord_bench.results.ranks import Ranks, ranks
from medlord_bench.results.run_results import RunResults
from medlord_bench.results.words import decimals_of, fixed, listing, number, span

from .grid import SEEN, Cell, Footnotes

LEAST_DIGITS = 2  # significant digits that declared decimals leave to the largest value of a column
SQUARE = "Square brackets: "


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation and number of the cases that have a number."""

    mean: float
    deviation: float
    n: int


@dataclass(frozen=True)
class Facts:
    """A run as the tables read it."""

    run: RunResults
    planes: bool = False

    @cached_property
    def ranks(self) -> Mapping[Key, Ranks]:
        return ranks(self.run)

    @cached_property
    def controls(self) -> Collection[str]:
        return [name for name in self.run.contestants if name not in self.run.ranked]

    @cached_property
    def seen(self) -> Mapping[str, str]:
        found = self.run.results.seen_in_pretraining if self.run.results else {}
        return {name: str(seen) for name, seen in found.items()}

    @cached_property
    def patients_unknown(self) -> str:
        return self.run.results.patients_unknown if self.run.results else ""

    @cached_property
    def places(self) -> Mapping[Key, Mapping[str, Place]]:
        valued: dict[Key, list[str]] = defaultdict(list)
        for score in self.run.scores:
            if score.status == "ok" and score.value is not None and score.generator in self.run.ranked:
                valued[key_of(score)].append(score.generator)
        found = self.run.comparisons.comparisons
        return {key: places(key, names, found) for key, names in valued.items()}

    @cached_property
    def spreads(self) -> Mapping[tuple[str, str, str], Spread]:
        """(metric, region, contestant) -> of its case rows, for metrics of a single protocol: rows do not name it."""
        protocols: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for score in self.run.scores:
            protocols[score.metric].add((score.protocol, score.dataset))
        values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        for row in self.run.rows:
            if row.generator and len(protocols[row.metric]) == 1 and math.isfinite(row.value):
                values[row.metric, row.region, row.generator].append(row.value)
        return {key: Spread(fmean(own), stdev(own), len(own)) for key, own in values.items() if len(own) > 1}

    @cached_property
    def real(self) -> Mapping[tuple[str, str], Sequence[CaseRow]]:
        """(metric, region) -> the rows of real training volumes."""
        found: dict[tuple[str, str], list[CaseRow]] = defaultdict(list)
        for row in self.run.rows:
            if not row.generator and row.split == "train":
                found[row.metric, row.region].append(row)
        return found

    def quantity(self, name: str) -> Quantity:
        return self.run.quantities.get(name) or Quantity(name=name, meaning="")

    def spread(self, score: Score) -> Spread | None:
        """Mean and standard deviation, which their cell shows instead of the score's own value."""
        if score.deviation is not None or self.quantity(score.metric).spread != "sd":
            return None
        return self.spreads.get((score.metric, score.region, score.generator))

    def place(self, score: Score) -> Place:
        return self.places.get(key_of(score), {}).get(score.generator, Place())

    def reason(self, score: Score) -> str:
        return score.reason or "no reason was given"


def decimals(scores: Iterable[Score], facts: Facts) -> int:
    """The decimals with which these values align: as the quantity declares, or four digits of the largest.

    A declared number is raised where it would leave a column of small values without digits.
    """
    known = [score for score in scores if score.status == "ok" and score.value is not None]
    values = [end for score in known for end in (score.value, score.floor, score.ceiling) if end is not None]
    if not any(values):
        values = [
            end for score in known for end in (score.low, score.high, *(score.quartiles or ())) if end is not None
        ]
    declared = {facts.quantity(score.metric).decimals for score in known}
    if len(declared) == 1 and (wanted := declared.pop()) is not None:
        return max(wanted, decimals_of(values, LEAST_DIGITS) if any(values) else 0)
    return decimals_of(values)


def cell(score: Score | None, digits: int, facts: Facts, notes: Footnotes) -> Cell:
    """A number with its brackets, bold where the paired tests make it the best."""
    if score is None:
        return Cell()
    if score.status == "not_run":
        return Cell("-", marks=(notes.mark(f"not run: {facts.reason(score)}"),))
    if score.value is None:
        return Cell()
    place, cases = facts.place(score), facts.spread(score)
    marks = []
    if place.word == "tied with best":
        marks.append(notes.tie(_tie(score, facts)))
    if score.failed:
        marks.append(notes.mark(f"{score.failed} of {score.n} failed and are counted"))
    value = cases.mean if cases else score.value
    return Cell(fixed(value, digits), _brackets(score, cases, digits, facts), tuple(marks), place.word == "best")


def _brackets(score: Score, cases: Spread | None, digits: int, facts: Facts) -> str:
    wanted = facts.quantity(score.metric).spread
    if cases or score.deviation is not None:
        return f"({fixed(cases.deviation if cases else score.deviation or 0.0, digits)})"
    if score.quartiles is not None and wanted != "sd":
        return f"({fixed(score.quartiles[1] - score.quartiles[0], digits)})"
    if score.low is not None and score.high is not None:
        return f"[{fixed(score.low, digits)}, {fixed(score.high, digits)}]"
    return ""


def bracket_words(scores: Iterable[Score], facts: Facts) -> list[str]:
    """What the brackets of these cells hold, for the caption."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for score in scores:
        if score.status != "ok" or score.value is None:
            continue
        text = _brackets(score, facts.spread(score), 0, facts)
        words = ""
        if text.startswith("["):
            words = SQUARE + (score.interval or "interval")
        elif text:
            spread = facts.spread(score) or score.deviation is not None
            words = "Mean (standard deviation) of the cases" if spread else "Median (interquartile range)"
        found[words][facts.quantity(score.metric).label] = None
    several = len({tuple(labels) for labels in found.values()}) > 1
    told = {words: words + (f" ({listing(list(labels))})" if several else "") for words, labels in found.items()}
    square = [text.removeprefix(SQUARE) for words, text in told.items() if words.startswith(SQUARE)]
    round_ = [text for words, text in told.items() if words and not words.startswith(SQUARE)]
    return [*([SQUARE + "; ".join(square)] if square else []), *round_]


def _tie(score: Score, facts: Facts) -> str:
    """What the tests of a column's ties would have detected; empty if that is not known."""
    ties = [one for one in facts.places[key_of(score)].values() if one.word == "tied with best"]
    needed = [end for one in ties for end in one.needed or ()]
    detectable = [end for one in ties for end in one.detectable or ()]
    several = len({one.reference for one in facts.run.scores if one.metric == score.metric}) > 1
    parts = (facts.quantity(score.metric).label, region_words(score.region), score.reference if several else "")
    told = []
    if detectable:
        ends = " to ".join(dict.fromkeys((number(min(detectable)), number(max(detectable)))))
        told.append(ends + (f" {score.unit}" if score.unit else ""))
    if needed:
        told.append(f"n of {span((min(needed), max(needed)))}")
    return f"{', '.join(filter(None, parts))}: {', '.join(told)}" if told else ""


def label_marks(contestant: str, facts: Facts, notes: Footnotes) -> tuple[str, ...]:
    """The mark of a contestant whose pretraining saw the data set."""
    seen = facts.seen.get(contestant)
    return (notes.sign(SEEN, f"{contestant}: {seen}"),) if seen else ()


def region_words(region: str) -> str:
    return region.replace("_", " ")
