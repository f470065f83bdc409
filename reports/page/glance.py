"""The run at a glance: a row per contestant, the headline quantities side by side, and who is better as tests have it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medlord_bench.comparisons import Comparison
from medlord_bench.results import Score

# What is read first, in this order: (metric, reference or None for whatever it has). FID against train and test stands
# beside the copy rate, since closeness to the training set alone rewards copying.
HEADLINES: tuple[tuple[str, str | None], ...] = (
    *(("fid", "test"), ("fid", "train"), ("copy_rate", None), ("kid", "test"), ("precision", "test")),
    *(("recall", "test"), ("rvr_joint", "train"), ("dsc", None), ("psnr", None), ("ms_ssim", None), ("lpips", None)),
)
WARNED = 6  # warnings of one contestant in one metric that are listed by region


@dataclass(frozen=True)
class Warned:
    contestant: str
    metric: str
    text: str


@dataclass(frozen=True)
class Column:
    """One headline quantity under one protocol. told: whether a test says who is best."""

    metric: str
    reference: str
    protocol: str
    unit: str
    better: str
    several: bool


@dataclass(frozen=True)
class Standing:
    """A value at a glance. place: "best", "tied" (no other was shown to be better, several are so), or empty."""

    score: Score | None
    place: str


@dataclass(frozen=True)
class Line:
    contestant: str
    cells: Sequence[Standing]


@dataclass(frozen=True)
class Glance:
    columns: Sequence[Column]
    lines: Sequence[Line]


def warnings(scores: Sequence[Score]) -> list[Warned]:
    """Every warning of the run, one line per contestant and quantity."""
    found: dict[tuple[str, str], list[Score]] = defaultdict(list)
    for score in scores:
        if score.warning:
            found[score.generator, score.metric].append(score)
    return [Warned(name, metric, _said(members)) for (name, metric), members in found.items()]


def _said(scores: Sequence[Score]) -> str:
    by_text: dict[str, list[str]] = defaultdict(list)
    for score in scores:
        by_text[score.warning].append(score.region)
    parts = []
    for text, regions in list(by_text.items())[:WARNED]:
        named = ", ".join(dict.fromkeys(region for region in regions if region))
        parts.append(f"{named}: {text}" if named else text)
    left = len(by_text) - WARNED
    return "; ".join(parts) + (f"; and {left} more" if left > 0 else "")


def glance(scores: Sequence[Score], comparisons: Sequence[Comparison]) -> Glance:
    """The headline quantities that this run has; empty without any."""
    values = {
        (score.metric, score.reference, score.protocol, score.generator): score
        for score in scores
        if not score.region and score.status == "ok"
    }
    contestants = list(dict.fromkeys(score.generator for score in scores))
    columns = []
    for metric, reference in HEADLINES:
        kinds = dict.fromkeys((k[1], k[2]) for k in values if k[0] == metric and reference in (None, k[1]))
        for own, protocol in kinds:
            sample = next(s for k, s in values.items() if k[:3] == (metric, own, protocol))
            columns.append(Column(metric, own, protocol, sample.unit, sample.better, len(kinds) > 1))
    places = {column: _places(column, contestants, comparisons) for column in columns}
    lines = []
    for name in contestants:
        cells = [
            Standing(values.get((one.metric, one.reference, one.protocol, name)), places[one].get(name, ""))
            for one in columns
        ]
        lines.append(Line(name, cells))
    return Glance(columns, lines)


def _places(column: Column, contestants: Sequence[str], comparisons: Sequence[Comparison]) -> Mapping[str, str]:
    """Who is beaten by nobody, where every pair was compared; one such is best, several are tied."""
    key = (column.metric, column.reference, column.protocol, "")
    own = [one for one in comparisons if (one.metric, one.reference, one.protocol, one.region) == key]
    compared = {name for one in own for name in (one.first, one.second)}
    if len(own) < len(compared) * (len(compared) - 1) / 2 or len(compared) < 2:
        return {}
    beaten = {one.second for one in own if one.verdict == "first"}
    beaten |= {one.first for one in own if one.verdict == "second"}
    unbeaten = [name for name in contestants if name in compared and name not in beaten]
    return {name: "best" if len(unbeaten) == 1 else "tied" for name in unbeaten}
