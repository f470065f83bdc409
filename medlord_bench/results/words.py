"""Numbers and lists as text for a reader, as every report writes them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def number(value: float | None) -> str:
    """Four significant digits, no exponent for everyday sizes."""
    if value is None:
        return "none"
    if not math.isfinite(value):
        return "not finite"
    if value != 0 and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.3e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def aligned(values: Sequence[float | None], significant: int = 4) -> list[str]:
    """Numbers of one column with equal decimals: `significant` digits for the largest, at least two for the smallest, at
    most six decimals. None and values that are not finite are as in `number`."""
    sizes = [abs(value) for value in values if value is not None and math.isfinite(value) and value != 0]
    if not sizes or max(sizes) >= 1e7 or max(sizes) < 1e-4:
        return [number(value) for value in values]
    largest, smallest = (math.floor(math.log10(size)) for size in (max(sizes), min(sizes)))
    decimals = min(max(significant - 1 - largest, 1 - smallest if largest < significant else 0, 0), 6)
    return [
        f"{value:,.{decimals}f}" if value is not None and math.isfinite(value) else number(value) for value in values
    ]


def rounded(value: float | None, decimals: int) -> str:
    """With this many decimals; None and values that are not finite are as in `number`."""
    return f"{value:,.{decimals}f}" if value is not None and math.isfinite(value) else number(value)


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


def span(ends: tuple[int, int]) -> str:
    """e.g. "about 40", "about 40 to 1,200"."""
    return "about " + " to ".join(dict.fromkeys(f"{end:,}" for end in ends))


def decimals_of(values: Sequence[float], significant: int | None = None) -> int:
    """Decimals with which a column of numbers aligns: the largest of them has this many significant digits.

    None: four, or three below 0.1, whose zeros take room too.
    """
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if largest == 0:
        return 0
    significant = significant or (4 if largest >= 0.1 else 3)
    return min(max(significant - 1 - math.floor(math.log10(largest)), 0), 8)


def fixed(value: float, decimals: int) -> str:
    """With exactly this many decimals and no minus before zero; "inf" and "-inf" for infinite values."""
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text


def tools(protocols: Iterable[Mapping[str, Any]]) -> str:
    """The extractors and segmenters that protocols name, e.g. "extractor imagenet"; empty without one."""
    named = [
        f"{kind} {tool['name']}"
        for text in protocols
        for kind in ("extractor", "segmenter")
        if isinstance(tool := text.get(kind), Mapping) and tool.get("name")
    ]
    return listing(list(dict.fromkeys(named)))
