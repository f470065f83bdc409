"""Comparisons between contestants, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medlord_bench.comparisons import Comparison, ComparisonsFile

SHOWN = 6  # comparisons that stand open; more fold away


@dataclass(frozen=True)
class Verdict:
    comparison: Comparison
    words: str


@dataclass(frozen=True)
class Verdicts:
    """main: of whole quantities. more: region by region."""

    main: Sequence[Verdict]
    more: Sequence[Verdict]
    not_compared: Sequence[str]

    @property
    def folded(self) -> bool:
        return len(self.main) > SHOWN


def verdicts(found: ComparisonsFile) -> Verdicts:
    told = [Verdict(one, words(one)) for one in found.comparisons]
    main = [one for one in told if not one.comparison.region]
    return Verdicts(main, [one for one in told if one.comparison.region], found.not_compared)


def words(one: Comparison) -> str:
    """The verdict as a sentence part."""
    if one.verdict in ("first", "second"):
        return f"{getattr(one, one.verdict)} is better"
    if one.verdict == "equivalent":
        return f"equivalent within {one.margin:g}"
    if one.n_needed is None:
        return "tie"
    return f"tie; about {one.n_needed:,} would tell them apart"
