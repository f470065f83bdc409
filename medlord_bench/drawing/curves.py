"""Training records as lines to draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Points = list[tuple[float, float]]  # (step, value)
NOT_QUANTITIES = {"step", "split", "time", "seconds"}


def quantities(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Points]]:
    """Quantity -> "train" or "val" -> its finite points by step. The last record of a step (a resumed run) is used."""
    found: dict[str, dict[str, dict[float, float]]] = {}
    for row in rows:
        if not _number(row.get("step")):
            continue
        split = "val" if row.get("split") == "val" else "train"
        for name, value in row.items():
            if name not in NOT_QUANTITIES and _number(value):
                found.setdefault(name, {}).setdefault(split, {})[float(row["step"])] = float(value)
    return {name: {split: sorted(by.items()) for split, by in series.items()} for name, series in found.items()}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """Mean over the last `width` values, fewer at the start: no point looks ahead."""
    total, means = [0.0], []
    for value in values:
        total.append(total[-1] + value)
    for end in range(1, len(total)):
        start = max(end - width, 0)
        means.append((total[end] - total[start]) / (end - start))
    return means


def thinned(points: Points, most: int) -> Points:
    """At most about `most` points: means of neighbours, at their mean step."""
    size = -(-len(points) // most)
    if size <= 1:
        return points
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(step for step, _ in part) / len(part), sum(value for _, value in part) / len(part)) for part in parts]
