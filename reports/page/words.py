"""Numbers and lists as text for a reader: the template's filters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from markupsafe import Markup

from medlord_bench.contracts.calibration import sight_rows
from medlord_bench.contracts.results import Score
from medlord_bench.results.words import duration, gib, listing, number, span

MAX_NAMED_CONTESTANTS = 4  # contestants that a heading names


def headline(words: Sequence[str]) -> str:
    """Contestants as a heading: by name if they are few."""
    return listing(words) if len(words) <= MAX_NAMED_CONTESTANTS else f"{len(words)} contestants"


def carried(score: Score) -> str:
    """The details of a number, for a cell that shows only the number."""
    parts = [f"n {score.n}" + (f" against {score.n_reference}" if score.n_reference is not None else "")]
    parts.append(f"{score.failed} failed" if score.failed else "")
    parts.append(f"interval: {score.interval}" if score.low is not None and score.interval else "")
    for name in ("floor", "ceiling"):
        value, note = getattr(score, name), getattr(score, f"{name}_note")
        parts.append(f"{name} {number(value)}" + (f" ({note})" if note else "") if value is not None else "")
    parts.append(f"p {number(score.p)} ({score.p_of})" if score.p is not None and score.p_of else "")
    return "; ".join(filter(None, [*parts, score.warning]))


def tally(things: Sequence[Any], attribute: str, values: Sequence[str]) -> list[int]:
    """The number of items with each value of an attribute."""
    return [sum(getattr(thing, attribute) == value for thing in things) for value in values]


def pretty(value: Any) -> str:
    """JSON as text, for a reader."""
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)


def as_json(value: Any) -> Markup:
    """Data for a script element; a "<" in a name cannot end the element."""
    plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    return Markup(json.dumps(plain, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))


def facts(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as dotted names and texts; None values are left out."""
    rows: list[tuple[str, str]] = []
    for key, inner in value.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(inner, Mapping):
            rows += facts(inner, f"{name}: ")
        elif isinstance(inner, list | tuple):
            rows.append((name, "; ".join(_text(entry) for entry in inner) or "none"))
        elif inner is not None:
            rows.append((name, str(inner)))
    return rows


def _text(entry: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in entry.items()) if isinstance(entry, Mapping) else str(entry)


FILTERS = {
    "sight_rows": sight_rows,
    **{"number": number, "duration": duration, "gib": gib, "listing": listing, "headline": headline, "span": span},
    **{"carried": carried, "tally": tally, "pretty": pretty, "facts": facts, "as_json": as_json},
}
