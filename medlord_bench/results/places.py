"""Who is best and who is tied in one quantity: by the paired tests alone, never by overlapping intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from medlord_bench.contracts.results import Score
from medlord_bench.results.comparisons import Comparison


class Key(NamedTuple):
    """What contestants are compared in: one quantity, of one region, against one reference, under one protocol."""

    metric: str
    region: str
    reference: str
    protocol: str
    dataset: str


@dataclass(frozen=True)
class Place:
    """word: "best" (no other is unbeaten), "tied with best" (some other is unbeaten too), or empty.

    needed: the smallest and the largest number of units needed to decide its ties. detectable: the smallest and the
    largest difference that these tests detect with a power of 80 %. untested: whether another contestant was not
    compared with it, so that it has no place.
    """

    word: str = ""
    needed: tuple[int, int] | None = None
    untested: bool = False
    detectable: tuple[float, float] | None = None


def key_of(one: Score | Comparison) -> Key:
    return Key(one.metric, one.region, one.reference, one.protocol, one.dataset)


def places(key: Sequence[str], contestants: Sequence[str], comparisons: Sequence[Comparison]) -> Mapping[str, Place]:
    """The contestants that no other beats in the paired tests, with their place.

    key: as `Key`. contestants: those that have a value. A contestant that was not compared with each of them has no
    place; without any comparison no contestant has one.
    """
    own = [one for one in comparisons if key_of(one) == tuple(key) and {one.first, one.second} <= {*contestants}]
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
        ties = [one for other in unbeaten if other != name and (one := by_pair.get(frozenset((name, other))))]
        needed = [one.n_needed for one in ties if one.n_needed is not None]
        detectable = [one.detectable for one in ties if one.detectable is not None]
        word = "" if name in untested else "tied with best" if len(unbeaten) > 1 else "best"
        found[name] = Place(
            word,
            (min(needed), max(needed)) if needed and word else None,
            name in untested,
            (min(detectable), max(detectable)) if detectable and word else None,
        )
    return found
