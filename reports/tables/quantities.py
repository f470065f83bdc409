"""The tables of scores, as the quantities of the metrics declare them; a third party's metric gets a table too.

Each table contains the quantities that name it, and those of its metric that name none. Values of
different protocols never share a column, except in the paper's layout of several data sets, where every row is of one protocol.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any, NamedTuple

from medlord_bench.contracts.results import Score
from medlord_bench.results.places import key_of
from medlord_bench.results.words import fixed, listing

from .captions import REAL, caption, labelled, n_words, ranked_only
from .cells import Facts, cell, decimals, label_marks, region_words
from .grid import Cell, Column, Footnotes, Panel, Row

PLANES = ("axial", "coronal", "sagittal")
WHOLE = ("", "body", *PLANES)  # regions that are no anatomical structures
REFERENCES = ("test", "train", "val")
OTHER = "other"
MAX_REGIONS = 8  # columns of regions; more are written down the table
CEILING, TRAIN = "Segmenter on real images", "Real training volumes"


class Place(NamedTuple):
    """What a column is of."""

    metric: str
    region: str
    reference: str
    protocol: str
    dataset: str


def by_table(facts: Facts) -> dict[str, list[Score]]:
    """Table name -> its scores, in the order of the run."""
    found: dict[str, list[Score]] = defaultdict(list)
    protocols = facts.run.results.protocols if facts.run.results else {}
    for score in facts.run.scores:
        if score.region in PLANES and not facts.planes:
            continue
        metric = protocols.get(score.protocol, {}).get("metric")
        found[facts.quantity(score.metric).table or str(metric or OTHER)].append(score)
    return found


def panels(name: str, scores: Sequence[Score], facts: Facts) -> list[Panel]:
    """The grids of one table: whole quantities first, then region by region."""
    regional = {score.metric for score in scores if score.region not in WHOLE}
    whole = [score for score in scores if score.metric not in regional]
    found = []
    if len({score.dataset for score in whole if score.status == "ok"}) > 1:
        found.append(_data_sets(name, whole, facts))
    elif whole:
        found.append(_whole(name, whole, facts))
    parts: dict[tuple[str, ...], list[Score]] = defaultdict(list)
    alone = len({score.generator for score in scores if score.status == "ok"}) == 1
    for score in scores:
        if score.metric in regional:
            parts["" if alone else score.metric, score.reference].append(score)
    for (metric, reference), own in parts.items():
        part = "-".join(filter(None, (name, metric, reference if len(parts) > 1 else "")))
        found += _regional(part, own, facts, alone)
    return [panel for panel in found if not panel.empty]


# ---------------------------------------------------------------------------------------------------- contestants down
def _whole(name: str, scores: Sequence[Score], facts: Facts) -> Panel:
    """Rows of contestants; a column per quantity, reference and protocol, with the intervals of the ranks."""
    notes = Footnotes()
    every = sorted(_columns(scores), key=lambda one: _order(one, scores))
    shown, absent = _measured(every, scores)
    told = _told_apart(shown, facts)
    columns: list[Column] = []
    makers: list[Callable[[str], Cell]] = []
    digits = {place: decimals(_of(place, scores), facts) for place in shown}
    for place in shown:
        own = {score.generator: score for score in _of(place, scores)}
        columns.append(Column(told[place]))
        makers.append(partial(_value, own, digits[place], facts, notes))
        ranked = facts.ranks.get(key_of(next(iter(own.values()))))
        if ranked and ranked.intervals:
            columns.append(Column((told[place][0], "rank"), kind="rank", of=columns[-1].title))
            makers.append(partial(_rank, ranked.intervals))
    columns.append(Column(("", "n"), kind="n"))
    makers.append(lambda who: Cell(n_words([score for score in scores if score.generator == who])))
    sections = _sections(scores, facts, notes, lambda who: [make(who) for make in makers])
    beside = [row for row in (_limit(REAL, "floor", columns, shown, scores, digits, facts),) if row]
    return Panel(
        name,
        caption(scores, facts, ranked=any(column.kind == "rank" for column in columns)),
        ("Contestant",),
        columns,
        [*sections, beside],
        [*notes.notes, *_absent(absent, facts)],
    )


def _value(own: Mapping[str, Score], digits: int, facts: Facts, notes: Footnotes, who: str) -> Cell:
    return cell(own.get(who), digits, facts, notes)


def _rank(intervals: Mapping[str, tuple[int, int]], who: str) -> Cell:
    return Cell("-".join(dict.fromkeys(map(str, intervals[who])))) if who in intervals else Cell()


def _regional(name: str, scores: Sequence[Score], facts: Facts, alone: bool) -> list[Panel]:
    """Columns of regions, rows of contestants; of quantities if a single contestant has them. Many regions are in the
    rows, with a grid for each protocol."""
    regions = list(dict.fromkeys(score.region for score in scores if score.status == "ok"))
    if len(regions) > MAX_REGIONS and not alone:
        found: dict[str, list[Score]] = defaultdict(list)
        for score in scores:
            found[score.protocol].append(score)
        return [
            _regions_down(name + (f"-{i}" if i else ""), own, facts) for i, own in enumerate(found.values())
        ]  # fmt: skip
    every, scores, who = scores, _each_region(scores), ""
    places = [place for place in _columns(scores) if any(score.status == "ok" for score in _of(place, scores))]
    heads = list(dict.fromkeys((place.region, place.reference, place.protocol, place.dataset) for place in places))
    notes = Footnotes()
    told = _region_heads(heads)
    quantities = list(dict.fromkeys(place.metric for place in places))
    groups = {name: [score for score in scores if score.metric == name] for name in quantities}
    cells = {(s.metric, s.generator, s.region, s.reference, s.protocol, s.dataset): s for s in scores}
    digits: Mapping[Any, int]
    if alone:
        digits = {(metric, head): decimals(groups[metric], facts) for metric in quantities for head in heads}
    else:
        digits = {(one.metric, one[1:]): decimals(_of(one, scores), facts) for one in places}

    def line(metric: str, who: str) -> list[Cell]:
        return [cell(cells.get((metric, who, *head)), digits.get((metric, head), 2), facts, notes) for head in heads]

    columns = [Column(told[head]) for head in heads]
    if alone:
        who = next(score.generator for score in scores if score.status == "ok")
        rows = [Row((labelled(metric, facts),), line(metric, who)) for metric in quantities]
        sections: list[list[Row]] = [[replace(row, marks=label_marks(who, facts, notes)) for row in rows]]
        corner = "Metric"
    else:
        sections = _sections(scores, facts, notes, lambda who: line(quantities[0], who))
        sections.append(_regional_limits(scores, places, columns, digits, facts))
        corner = "Contestant"
    text = caption(scores, facts, of=who if alone else "")
    others = _others(every, facts) if alone else []
    return [Panel(name, text, (corner,), columns, sections, [*notes.notes, *others])]


def _regions_down(name: str, scores: Sequence[Score], facts: Facts) -> Panel:
    scores = _each_region(scores)
    notes = Footnotes()
    regions = list(dict.fromkeys(score.region for score in scores if score.status == "ok"))
    names = [who for who in _ordered(scores, facts) if any(s.generator == who and s.status == "ok" for s in scores)]
    cells = {(score.region, score.generator): score for score in scores}
    digits = {region: decimals([s for s in scores if s.region == region], facts) for region in regions}
    rows = [
        Row((_region(region),), [cell(cells.get((region, who)), digits[region], facts, notes) for who in names])
        for region in regions
    ]
    marked = [who + "".join(label_marks(who, facts, notes)) for who in names]
    return Panel(
        name, caption(scores, facts), ("Region",), [Column((who,)) for who in marked], [rows], notes.notes
    )  # fmt: skip


# --------------------------------------------------------------------------------------- the paper's look: contestants across
def _data_sets(name: str, scores: Sequence[Score], facts: Facts) -> Panel:
    """Rows of data sets and quantities, columns of contestants and of real volumes."""
    notes = Footnotes()
    order = list(dict.fromkeys(score.dataset for score in scores))
    shown, _ = _measured(
        sorted(_columns(scores), key=lambda one: (order.index(one.dataset), _order(one, scores))), scores
    )
    told = _told_apart(shown, facts, datasets=False)
    names = _ordered(scores, facts)
    floors = any(score.floor is not None for score in scores)
    rows = []
    for place in shown:
        own = {score.generator: score for score in _of(place, scores)}
        digits = decimals(own.values(), facts)
        cells = [cell(own.get(who), digits, facts, notes) for who in names]
        real = [Cell(_common([score.floor for score in own.values()], digits))] if floors else []
        rows.append(Row((place.dataset, ", ".join(filter(None, told[place]))), [*cells, *real]))
    corners: tuple[str, ...] = ("Data set", "Metric")
    if len({row.labels[1] for row in rows}) == 1:
        corners, rows = ("Data set",), [Row(row.labels[:1], row.cells) for row in rows]
    marked = [who + "".join(label_marks(who, facts, notes)) for who in names]
    columns = [Column((who,)) for who in (*marked, *(["Real"] if floors else []))]
    return Panel(name, caption(scores, facts), corners, columns, [rows], notes.notes)


# --------------------------------------------------------------------------------------------------------------- parts
def _columns(scores: Iterable[Score]) -> list[Place]:
    return list(dict.fromkeys(Place(*key_of(score)) for score in scores))


def _of(place: Place, scores: Iterable[Score]) -> list[Score]:
    return [score for score in scores if tuple(key_of(score)) == tuple(place)]


def _order(place: Place, scores: Sequence[Score]) -> tuple[int, int, int]:
    metrics = list(dict.fromkeys(score.metric for score in scores))
    reference = REFERENCES.index(place.reference) if place.reference in REFERENCES else len(REFERENCES)
    return metrics.index(place.metric), reference, WHOLE.index(place.region) if place.region in WHOLE else 0


def _measured(places: Sequence[Place], scores: Sequence[Score]) -> tuple[list[Place], list[Score]]:
    """The columns in which a contestant has a value, and a score that says why another column is left out."""
    shown = [place for place in places if any(score.value is not None for score in _of(place, scores))]
    return shown, [_of(place, scores)[0] for place in places if place not in shown]


def _absent(scores: Sequence[Score], facts: Facts) -> list[tuple[str, str]]:
    reasons: dict[str, dict[str, None]] = defaultdict(dict)
    for score in scores:
        reasons[facts.reason(score)][facts.quantity(score.metric).label] = None
    return [("", f"{listing(list(names))} not run: {reason}") for reason, names in reasons.items()]


def _others(scores: Sequence[Score], facts: Facts) -> list[tuple[str, str]]:
    """Why the contestants without any value are not in the grid."""
    measured = {score.generator for score in scores if score.status == "ok"}
    reasons: dict[str, dict[str, None]] = defaultdict(dict)
    for score in scores:
        if score.generator not in measured:
            reasons[facts.reason(score)][score.generator] = None
    return [("", f"{listing(list(names))} not run: {reason}") for reason, names in reasons.items()]


def _each_region(scores: Sequence[Score]) -> list[Score]:
    """A score that was not run and names several regions, or none, applies to each region without one of its own."""
    columns = dict.fromkeys(
        (s.metric, s.region, s.reference, s.protocol, s.dataset) for s in scores if s.status == "ok"
    )
    known = {(key_of(score), score.generator) for score in scores if score.status == "ok"}
    found = {(key_of(score), score.generator): score for score in scores if score.status == "ok"}
    for score in scores:
        if score.status == "ok":
            continue
        for place in columns:
            same = (place[0], *place[2:]) == (score.metric, score.reference, score.protocol, score.dataset)
            named = not score.region or place[1] == score.region or place[1] in score.region.split(", ")
            new = score.model_copy(update={"region": place[1]})
            if same and named and (key_of(new), new.generator) not in known:
                found.setdefault((key_of(new), new.generator), new)
    return list(found.values())


def _ordered(scores: Sequence[Score], facts: Facts) -> list[str]:
    """Contestants in the order of the run, controls last."""
    names = list(dict.fromkeys(score.generator for score in scores))
    names = [name for name in facts.run.contestants if name in names] + [
        name for name in names if name not in facts.run.contestants
    ]
    return sorted(names, key=lambda name: name in facts.controls)


def _sections(
    scores: Sequence[Score], facts: Facts, notes: Footnotes, cells: Callable[[str], list[Cell]]
) -> list[list[Row]]:
    """Contestants, and below a rule the controls; those without a value and a reason are left out."""
    found: list[list[Row]] = [[], []]
    for name in _ordered(scores, facts):
        control = name in facts.controls
        if control and all(score.value is None for score in scores if score.generator == name):
            continue  # a control that gives no such number needs no dashes
        row = Row((name,), cells(name), label_marks(name, facts, notes), control)
        if any(one.value for one in row.cells):
            found[control].append(row)
    return found


def _told_apart(places: Sequence[Place], facts: Facts, datasets: bool = True) -> dict[Place, tuple[str, ...]]:
    """Headings: the quantity, then what its columns differ in: region, reference, protocol."""
    found: dict[Place, tuple[str, ...]] = {}
    for place in places:
        same = [one for one in places if one.metric == place.metric]
        parts = [region_words(place.region)]
        if len({one.reference for one in places}) > 1:
            parts.append(place.reference)
        alike = [one for one in same if datasets or one.dataset == place.dataset]
        protocols = list(dict.fromkeys(one.protocol for one in alike))
        if len(protocols) > 1:
            parts.append(_protocol_words(place.protocol, protocols))
        found[place] = (labelled(place.metric, facts), ", ".join(filter(None, parts)))
    return found


def _protocol_words(protocol: str, others: Sequence[str]) -> str:
    """What a reader tells a protocol by: its label, e.g. the extractor; with its hash if labels are equal."""

    def label(one: str) -> str:
        parts = one.removesuffix("-unlocked").split("-")
        return " ".join(parts[1:-1])

    own = label(protocol)
    return own if own and [label(one) for one in others].count(own) == 1 else protocol


def _region(region: str) -> str:
    return region_words(region) or "all"


def _region_heads(heads: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], tuple[str, ...]]:
    found: dict[tuple[str, ...], tuple[str, ...]] = {}
    for region, reference, protocol, dataset in heads:
        rivals = [one for one in heads if one[0] == region]
        several = list(dict.fromkeys(one[2] for one in rivals))
        extra = [dataset] * (len({one[3] for one in rivals}) > 1)
        extra += [_protocol_words(protocol, several)] * (len(several) > 1 and not extra)
        found[region, reference, protocol, dataset] = (_region(region), *extra)
    return found


def _regional_limits(
    scores: Sequence[Score], places: Sequence[Place], columns: Sequence[Column], digits: Mapping[Any, int], facts: Facts
) -> list[Row]:
    """Floor, ceiling and real training volumes, where they are known."""
    by_place = {place: digits[place.metric, place[1:]] for place in places}
    rows = [
        _limit(REAL, "floor", columns, places, scores, by_place, facts),
        _limit(CEILING, "ceiling", columns, places, scores, by_place, facts),
    ]
    real = [facts.real.get((place.metric, place.region)) for place in places]
    if any(real):
        cells = [Cell(fixed(_patients(one), by_place[p]) if one else "") for one, p in zip(real, places, strict=True)]
        rows.append(Row((TRAIN,), cells))
    return [row for row in rows if row]


def _patients(rows: Sequence[Any]) -> float:
    """The median over patients of the median of each one's volumes."""
    patients: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        patients[row.patient or row.case].append(row.value)
    return float(median(median(own) for own in patients.values()))


def _limit(
    label: str,
    name: str,
    columns: Sequence[Column],
    places: Sequence[Place],
    scores: Sequence[Score],
    digits: Mapping[Place, int],
    facts: Facts,
) -> Row | None:
    """A row of floors or ceilings; columns of ranks and of n stay empty."""
    scores = ranked_only(scores, facts)  # a control's floor may be of another n
    values = iter([_common([getattr(s, name) for s in _of(place, scores)], digits[place]) for place in places])
    cells = [Cell(next(values)) if column.kind == "value" else Cell() for column in columns]
    return Row((label,), cells) if any(one.value for one in cells) else None


def _common(values: Iterable[float | None], digits: int) -> str:
    """One text for values that are the same for all contestants, else their range."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    return " to ".join(dict.fromkeys((fixed(min(known), digits), fixed(max(known), digits))))
