"""The run at a glance: a row per contestant, the headline quantities side by side, and who is better as tests have it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from medlord_bench.contracts.results import Score
from medlord_bench.engine.comparisons import Comparison

REFERENCES = ("test", "train", "val")
MISSING = "rvr_missing"  # shown as the regions that it is of
# What is read first, in this order: (metric, reference or None for whatever it has). FID against train and test stands
# beside the copy rate, since closeness to the training set alone rewards copying.
HEADLINES: tuple[tuple[str, str | None], ...] = (
    *(("fid", "test"), ("fid", "train"), ("copy_rate", None), ("kid", "test"), ("precision", "test")),
    *(("recall", "test"), ("rvr_joint", "train"), (MISSING, None), ("dsc", None), ("psnr", None), ("ms_ssim", None)),
    ("lpips", None),
)


@dataclass(frozen=True)
class Column:
    """One quantity under one protocol. told: what tells it from another column of the same name; empty where none.

    floor, ceiling: where one holds for all contestants.
    """

    metric: str
    region: str
    reference: str
    protocol: str
    dataset: str
    unit: str = ""
    better: str = ""
    told: str = ""
    floor: float | None = None
    ceiling: float | None = None

    @property
    def key(self) -> tuple[str, ...]:
        return self.metric, self.region, self.reference, self.protocol, self.dataset


@dataclass(frozen=True)
class Place:
    """word: "best" (no other is unbeaten), "tied with best" (some other is unbeaten too), or empty.

    needed: the fewest and the most units that would tell it from the others that it is tied with. untested: whether
    some other was not compared with it, so that it has no place.
    """

    word: str = ""
    needed: tuple[int, int] | None = None
    untested: bool = False


@dataclass(frozen=True)
class Standing:
    """One contestant in one quantity. reason: why there is no score. missing: the regions that samples lack more often
    than real volumes do; None in a column that is not about missing regions."""

    score: Score | None
    place: Place
    reason: str = ""
    missing: Sequence[Score] | None = None


@dataclass(frozen=True)
class Line:
    contestant: str
    cells: Sequence[Standing]


@dataclass(frozen=True)
class Glance:
    columns: Sequence[Column]
    lines: Sequence[Line]


def glance(scores: Sequence[Score], comparisons: Sequence[Comparison], controls: Collection[str] = ()) -> Glance:
    """The headline quantities that this run has; empty without any. controls: who has no place among the others."""
    found = _columns([score for score in scores if not score.region or score.metric == MISSING])
    order = [
        column
        for metric, reference in HEADLINES
        for column in found
        if column.metric == metric and reference in (None, column.reference)
    ]
    return _glance(order, scores, comparisons, controls)


def overview(scores: Sequence[Score]) -> Glance:
    """Every quantity of the scores, contestants that have any down: what a long table says, its numbers alone."""
    found = _columns(scores)
    quantities = list(dict.fromkeys((column.metric, column.region) for column in found))
    found.sort(key=lambda one: (quantities.index((one.metric, one.region)), order_of(one.reference)))
    made = _glance(found, scores, [], ())
    return Glance(made.columns, [line for line in made.lines if any(map(_has_value, line.cells))])


def _has_value(cell: Standing) -> bool:
    return cell.score is not None or cell.missing is not None


def order_of(reference: str) -> int:
    """The test set first: the training set stands beside it to unmask copying."""
    return REFERENCES.index(reference) if reference in REFERENCES else len(REFERENCES)


def _columns(scores: Sequence[Score]) -> list[Column]:
    """A column per quantity that has a value, in order of appearance. Missing regions are one column together."""
    found: dict[tuple[str, ...], list[Score]] = defaultdict(list)
    for score in scores:
        if score.status == "ok":
            region = "" if score.metric == MISSING else score.region
            found[score.metric, region, score.reference, score.protocol, score.dataset].append(score)
    return [_told_apart(key, members, found) for key, members in found.items()]


def _told_apart(key: tuple[str, ...], scores: Sequence[Score], every: Collection[tuple[str, ...]]) -> Column:
    """A column; one that shares its name says its protocol, and its data set where there are several."""
    metric, region, reference, protocol, dataset = key
    told = [dataset] * (len({one[4] for one in every}) > 1)
    told += [protocol] * (len({one[3] for one in every if one[:3] == key[:3]}) > 1)
    limits = {name: {getattr(score, name) for score in scores} for name in ("floor", "ceiling")}
    common = {name: values.pop() for name, values in limits.items() if len(values) == 1 and metric != MISSING}
    return Column(
        metric,
        region,
        reference,
        protocol,
        dataset,
        scores[0].unit,
        scores[0].better,
        " · ".join(told),
        common.get("floor"),
        common.get("ceiling"),
    )


def _glance(
    columns: Sequence[Column], scores: Sequence[Score], comparisons: Sequence[Comparison], controls: Collection[str]
) -> Glance:
    contestants = list(dict.fromkeys(score.generator for score in scores))
    cells = {column.key: _cells(column, contestants, scores, comparisons, controls) for column in columns}
    return Glance(columns, [Line(name, [cells[column.key][name] for column in columns]) for name in contestants])


def _cells(
    column: Column,
    contestants: Sequence[str],
    scores: Sequence[Score],
    comparisons: Sequence[Comparison],
    controls: Collection[str],
) -> dict[str, Standing]:
    metric, region, *rest = column.key
    own = [s for s in scores if s.metric == metric and [s.reference, s.protocol, s.dataset] == rest]
    absent = [s for s in own if s.status == "not_run" and (metric == MISSING or s.region in ("", region))]
    reasons = {score.generator: score.reason for score in absent}
    if metric == MISSING:
        regions = {name: [s for s in own if s.generator == name and s.status == "ok"] for name in contestants}
        return {
            name: Standing(None, Place(), reasons.get(name, ""), _lacking(found) if found else None)
            for name, found in regions.items()
        }
    values = {score.generator: score for score in own if score.status == "ok" and score.region == region}
    ranked = [name for name, score in values.items() if score.value is not None and name not in controls]
    standing = places(column, ranked, comparisons)
    return {
        name: Standing(values.get(name), standing.get(name, Place()), reasons.get(name, "")) for name in contestants
    }


def _lacking(scores: Sequence[Score]) -> list[Score]:
    return [score for score in scores if score.value is not None and score.value > (score.floor or 0)]


def places(column: Column, contestants: Sequence[str], comparisons: Sequence[Comparison]) -> Mapping[str, Place]:
    """Who is beaten by nobody, as the paired tests have it, and of how many that can be said.

    contestants: those that have a value. A contestant that was not compared with each of them has no place; nobody has
    one where nothing was compared.
    """
    own = [one for one in comparisons if _of(one) == column.key and {one.first, one.second} <= {*contestants}]
    if not own:
        return {}
    by_pair = {frozenset((one.first, one.second)): one for one in own}
    beaten = {one.second for one in own if one.verdict == "first"} | {
        one.first for one in own if one.verdict == "second"
    }
    untested = {name for pair in combinations(contestants, 2) if frozenset(pair) not in by_pair for name in pair}
    unbeaten = [name for name in contestants if name not in beaten]
    found = {}
    for name in unbeaten:
        needed = [
            one.n_needed
            for other in unbeaten
            if other != name and (one := by_pair.get(frozenset((name, other)))) and one.n_needed is not None
        ]
        word = "" if name in untested else "tied with best" if len(unbeaten) > 1 else "best"
        found[name] = Place(word, (min(needed), max(needed)) if needed and word else None, name in untested)
    return found


def _of(one: Comparison) -> tuple[str, ...]:
    return one.metric, one.region, one.reference, one.protocol, one.dataset
