"""What a reader must know of a table: its caption."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from medlord_bench.contracts.results import Score
from medlord_bench.results.words import listing, tools

from .cells import Facts, bracket_words

REAL = "Real against real"
PAIRED = "Bold: best by paired tests (Holm-corrected at 5 %)"


def caption(scores: Sequence[Score], facts: Facts, ranked: bool = False, of: str = "") -> str:
    """Quantities, data set, n, what is in brackets, and protocol: all that a reader needs outside the report."""
    known = ranked_only([score for score in scores if score.status == "ok" and score.value is not None], facts)
    title = listing(list(dict.fromkeys(labelled(score.metric, facts) for score in known)))
    title += (f" of {of}" if of else "") + " on " + listing(list(dict.fromkeys(score.dataset for score in known)))
    references = list(dict.fromkeys(filter(None, (score.reference for score in known))))
    counts = sorted({(score.reference, score.n_reference) for score in known if score.n_reference is not None})
    if len(references) == 1:
        title += f", against the {references[0]} split" if counts else f", {references[0]} split"
    n = f"n = {n_words(known)}" if n_words(known) else ""
    n += " against " + listing([f"{count} {split}".strip() for split, count in counts]) if counts else ""
    floors = sorted({score.floor_n for score in known if score.floor is not None and score.floor_n is not None})
    protocols = list(dict.fromkeys(score.protocol for score in known))
    parts = [
        title,
        _direction(known, facts),
        n,
        facts.patients_unknown.partition(":")[0].capitalize(),
        f"{REAL}: {' to '.join(dict.fromkeys((str(floors[0]), str(floors[-1]))))} a side" if floors else "",
        *bracket_words(known, facts),
        PAIRED if any(facts.place(score).word for score in known) else "",
        "Rank: 95 % interval" if ranked else "",
        tools(facts.run.results.protocols.get(id, {}) for id in protocols).capitalize() if facts.run.results else "",
        f"Protocol{'s' * (len(protocols) > 1)} {listing(protocols)}",
    ]
    return ". ".join(filter(None, parts)) + "."


def _direction(scores: Sequence[Score], facts: Facts) -> str:
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for score in scores:
        found[score.better][facts.quantity(score.metric).label] = None
    sides = {side: labels for side, labels in found.items() if side}
    if len(found) == 1:
        return "".join(f"{side.capitalize()} is better" for side in sides)
    return "; ".join(f"{side.capitalize()} is better for {listing(list(labels))}" for side, labels in sides.items())


def ranked_only(scores: Sequence[Score], facts: Facts) -> Sequence[Score]:
    """Without controls, unless only controls were measured."""
    return [score for score in scores if score.generator not in facts.controls] or scores


def n_words(scores: Sequence[Score]) -> str:
    known = [score.n for score in scores if score.status == "ok" and score.n]
    return " to ".join(dict.fromkeys((str(min(known)), str(max(known))))) if known else ""


def labelled(metric: str, facts: Facts) -> str:
    quantity = facts.quantity(metric)
    return quantity.label + (f" ({quantity.unit})" if quantity.unit else "")
