"""Comparisons between contestants, in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from medlord_bench.results.comparisons import Comparison, ComparisonsFile

OPEN_COMPARISONS = 6  # comparisons that are not folded; more are folded by quantity


@dataclass(frozen=True)
class Verdict:
    comparison: Comparison
    words: str


@dataclass(frozen=True)
class Quantity:
    """The comparisons in one quantity under one protocol. counts: their outcomes, in words."""

    title: str
    protocol: str
    counts: str
    how: Sequence[str]
    verdicts: Sequence[Verdict]


@dataclass(frozen=True)
class Verdicts:
    """main: of whole quantities. more: region by region."""

    main: Sequence[Quantity]
    more: Sequence[Quantity]
    not_compared: Sequence[str]

    @property
    def folded(self) -> bool:
        return sum(len(one.verdicts) for one in self.main) > OPEN_COMPARISONS

    @property
    def any(self) -> bool:
        return bool(self.main or self.more or self.not_compared)


def verdicts(found: ComparisonsFile) -> Verdicts:
    whole = [one for one in found.comparisons if not one.region]
    regional = [one for one in found.comparisons if one.region]
    return Verdicts(_quantities(whole), _quantities(regional), found.not_compared)


def _quantities(found: Sequence[Comparison]) -> list[Quantity]:
    groups: dict[tuple[str, str, str, str], list[Comparison]] = defaultdict(list)
    for one in found:
        groups[one.metric, one.reference, one.protocol, one.dataset].append(one)
    return [
        Quantity(
            title=metric + (f", against {reference}" if reference else ""),
            protocol=protocol,
            counts=_counts(members),
            how=list(dict.fromkeys(one.how for one in members)),
            verdicts=[Verdict(one, words(one)) for one in members],
        )
        for (metric, reference, protocol, _), members in groups.items()
    ]


def _counts(found: Sequence[Comparison]) -> str:
    told = sum(one.verdict in ("first", "second") for one in found)
    same = sum(one.verdict == "equivalent" for one in found)
    ties = len(found) - told - same
    parts = ((told, "decided"), (ties, "ties" if ties != 1 else "tie"), (same, "equivalent"))
    return ", ".join(f"{count} {word}" for count, word in parts if count)


def words(one: Comparison) -> str:
    """The verdict as a sentence part."""
    if one.verdict in ("first", "second"):
        return f"{getattr(one, one.verdict)} is better"
    if one.verdict == "equivalent":
        return f"equivalent within {one.margin:g}" if one.margin is not None else "equivalent"
    if one.n_needed is None:
        return "tie"
    return f"tie; n of about {one.n_needed:,} needed to decide"
