"""The run at a glance: a row per contestant, the headline quantities, and which contestant is better by the tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from medlord_bench.contracts.metrics import Quantity
from medlord_bench.contracts.results import Score
from medlord_bench.results.comparisons import Comparison
from medlord_bench.results.places import Place, places

REFERENCES = ("test", "train", "val")
Quantities = Mapping[str, Quantity]  # by name


@dataclass(frozen=True)
class Column:
    """One quantity under one protocol. told: its difference from another column of the same name; empty without one.

    label, decimals: of the quantity. floor, ceiling: if one holds for all contestants. by_region: the column's
    title if it lists regions.
    """

    metric: str
    region: str
    reference: str
    protocol: str
    dataset: str
    label: str
    decimals: int | None = None
    unit: str = ""
    better: str = ""
    told: str = ""
    floor: float | None = None
    ceiling: float | None = None
    by_region: str = ""

    @property
    def title(self) -> str:
        return self.by_region or self.label

    @property
    def key(self) -> tuple[str, ...]:
        return self.metric, self.region, self.reference, self.protocol, self.dataset


@dataclass(frozen=True)
class Standing:
    """One contestant in one quantity. reason: why there is no score. missing: the regions that samples lack more often
    than real volumes do, of `regions` that were looked at; None in a column that is not about missing regions."""

    score: Score | None
    place: Place
    reason: str = ""
    missing: Sequence[Score] | None = None
    regions: int = 0


@dataclass(frozen=True)
class Line:
    contestant: str
    cells: Sequence[Standing]


@dataclass(frozen=True)
class Glance:
    columns: Sequence[Column]
    lines: Sequence[Line]


def glance(
    scores: Sequence[Score],
    comparisons: Sequence[Comparison],
    quantities: Quantities,
    controls: Collection[str] = (),
) -> Glance:
    """The headline quantities of this run, in their declared order; empty without any.

    controls: contestants that are not ranked.
    """
    first = [score for score in scores if not score.region or _by_region(score.metric, quantities)]
    found = _columns(first, quantities, controls)
    headlines = sorted(
        (headline.rank, one.name, headline.reference) for one in quantities.values() for headline in one.headline
    )
    order = [
        column
        for _, metric, reference in headlines
        for column in found
        if column.metric == metric and reference in ("", column.reference)
    ]
    return _glance(order, scores, comparisons, controls)


def overview(scores: Sequence[Score], quantities: Quantities) -> Glance:
    """Every quantity of the scores, one row per contestant with a score: the values of a long table alone."""
    found = _columns(scores, quantities)
    names = list(dict.fromkeys((column.metric, column.region) for column in found))
    found.sort(key=lambda one: (names.index((one.metric, one.region)), order_of(one.reference)))
    made = _glance(found, scores, [], ())
    return Glance(made.columns, [line for line in made.lines if any(map(_has_value, line.cells))])


def _by_region(metric: str, quantities: Quantities) -> str:
    """The title of a quantity that is shown as the regions that it is of; empty for the others."""
    return quantities[metric].by_region if metric in quantities else ""


def _has_value(cell: Standing) -> bool:
    return cell.score is not None or cell.missing is not None


def order_of(reference: str) -> int:
    """The test set first; the training set follows it to reveal copying."""
    return REFERENCES.index(reference) if reference in REFERENCES else len(REFERENCES)


def _columns(scores: Sequence[Score], quantities: Quantities, controls: Collection[str] = ()) -> list[Column]:
    """A column per quantity that has a value, in order of appearance; one for all regions of a quantity by region."""
    found: dict[tuple[str, ...], list[Score]] = defaultdict(list)
    for score in scores:
        if score.status == "ok":
            region = "" if _by_region(score.metric, quantities) else score.region
            found[score.metric, region, score.reference, score.protocol, score.dataset].append(score)
    columns = []
    for key, members in found.items():
        ranked = [score for score in members if score.generator not in controls]
        columns.append(_told_apart(key, ranked or members, found, quantities))
    return columns


def _told_apart(
    key: tuple[str, ...], scores: Sequence[Score], every: Collection[tuple[str, ...]], quantities: Quantities
) -> Column:
    """A column; a shared name is followed by the protocol, and by the data set if there are several."""
    metric, region, reference, protocol, dataset = key
    by_region, label = _by_region(metric, quantities), quantities[metric].label if metric in quantities else metric
    told = [dataset] * (len({one[4] for one in every}) > 1)
    told += [protocol] * (len({one[3] for one in every if one[:3] == key[:3]}) > 1)
    limits = {name: {getattr(score, name) for score in scores} for name in ("floor", "ceiling")}
    common = {name: values.pop() for name, values in limits.items() if len(values) == 1 and not by_region}
    return Column(
        metric,
        region,
        reference,
        protocol,
        dataset,
        label,
        quantities[metric].decimals if metric in quantities else None,
        scores[0].unit,
        scores[0].better,
        " · ".join(told),
        common.get("floor"),
        common.get("ceiling"),
        by_region,
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
    absent = [s for s in own if s.status == "not_run" and (column.by_region or s.region in ("", region))]
    reasons = {score.generator: score.reason for score in absent}
    if column.by_region:
        regions = {name: [s for s in own if s.generator == name and s.status == "ok"] for name in contestants}
        return {
            name: Standing(None, Place(), reasons.get(name, ""), _lacking(found) if found else None, len(found))
            for name, found in regions.items()
        }
    values = {score.generator: score for score in own if score.status == "ok" and score.region == region}
    ranked = [name for name, score in values.items() if score.value is not None and name not in controls]
    standing = places(column.key, ranked, comparisons)
    return {
        name: Standing(values.get(name), standing.get(name, Place()), reasons.get(name, "")) for name in contestants
    }


def _lacking(scores: Sequence[Score]) -> list[Score]:
    return [score for score in scores if score.value is not None and score.value > (score.floor or 0)]
