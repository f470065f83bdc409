"""Time and memory in words: the steps of a run summed by contestant and kind of work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medlord_bench.results.step_records import StepRecord

WORK = {
    "images": "preparing the images",
    "weights": "training",
    "select": "choosing a checkpoint",
    "samples": "sampling",
    "conditional": "conditional sampling",
    "reconstructions": "reconstructing",
    "features": "features",
    "labels": "segmenting",
    "training-samples": "sampling for segmenters",
    "training-plan": "planning segmenters",
    "arms": "training segmenters",
    "predictions": "predicting test cases",
    "states": "measuring cases",
    "scores": "computing scores",
}
SHARED = "all"


@dataclass(frozen=True)
class Cost:
    """seconds: summed over the steps; None if none was timed in this run. peak_gib: the highest of them."""

    contestant: str
    work: str
    steps: int
    seconds: float | None
    peak_gib: float | None
    states: Sequence[str]


def costs(steps: Sequence[StepRecord], contestants: Sequence[str]) -> list[Cost]:
    """One row per contestant and kind of work, in the order of the run; what all share comes first."""
    groups: dict[tuple[str, str], list[StepRecord]] = {}
    for step in steps:
        owner = step.contestant if step.contestant in contestants else SHARED
        groups.setdefault((owner, WORK.get(step.kind, step.kind or step.name)), []).append(step)
    order = [SHARED, *contestants]
    found = [_cost(owner, work, members) for (owner, work), members in groups.items()]
    return sorted(found, key=lambda cost: order.index(cost.contestant))


def _cost(contestant: str, work: str, steps: Sequence[StepRecord]) -> Cost:
    seconds = [step.seconds for step in steps if step.seconds is not None]
    peaks = [step.peak_gib for step in steps if step.peak_gib is not None]
    states = list(dict.fromkeys(step.state for step in steps))
    return Cost(contestant, work, len(steps), sum(seconds) if seconds else None, max(peaks, default=None), states)
