"""Numbers and lists as text for a reader: the template's filters."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from markupsafe import Markup

from medlord_bench.contracts.results import Score

MAX_NAMED_CONTESTANTS = 4  # contestants that a heading names


def number(value: float | None) -> str:
    """Four significant digits, no exponent for everyday sizes."""
    if value is None:
        return "none"
    if not math.isfinite(value):
        return "not finite"
    if value != 0 and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.3e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def aligned(values: Sequence[float | None]) -> list[str]:
    """Numbers of one column with equal decimals: four digits for the largest, at least two for the smallest, at most six
    decimals. None and values that are not finite are as in `number`."""
    sizes = [abs(value) for value in values if value is not None and math.isfinite(value) and value != 0]
    if not sizes or max(sizes) >= 1e7 or max(sizes) < 1e-4:
        return [number(value) for value in values]
    largest, smallest = (math.floor(math.log10(size)) for size in (max(sizes), min(sizes)))
    decimals = min(max(3 - largest, 1 - smallest if largest < 4 else 0, 0), 6)
    return [
        f"{value:,.{decimals}f}" if value is not None and math.isfinite(value) else number(value) for value in values
    ]


def duration(seconds: float | None) -> str:
    """e.g. "0.4 s", "3 min 20 s", "2 h 05 min"; a dash for none."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def gib(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} GiB"


def listing(words: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def headline(words: Sequence[str]) -> str:
    """Contestants as a heading: by name if they are few."""
    return listing(words) if len(words) <= MAX_NAMED_CONTESTANTS else f"{len(words)} contestants"


def span(ends: tuple[int, int]) -> str:
    """e.g. "about 40", "about 40 to 1,200"."""
    return "about " + " to ".join(dict.fromkeys(f"{end:,}" for end in ends))


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
    **{"number": number, "duration": duration, "gib": gib, "listing": listing, "headline": headline, "span": span},
    **{"carried": carried, "tally": tally, "pretty": pretty, "facts": facts, "as_json": as_json},
}
