"""The training of each contestant: its own grid and window, steps and time of each stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medlord_bench.results.step_records import Trained

CROPPED = {"crop-pad": "cropped or padded", "resize": "resized"}


@dataclass(frozen=True)
class StageEffort:
    """One training stage. steps, seconds: None if it does not iterate, or is not done. adopted: loaded weights."""

    stage: str
    steps: int | None
    seconds: float | None
    device: str
    adopted: bool

    @property
    def each(self) -> float | None:
        """Seconds per step."""
        return self.seconds / self.steps if self.seconds is not None and self.steps else None


@dataclass(frozen=True)
class Effort:
    """One contestant's training. native: its own grid and window as text, if it has them."""

    contestant: str
    native: str
    stages: tuple[StageEffort, ...]

    @property
    def steps(self) -> int:
        return sum(stage.steps or 0 for stage in self.stages)

    @property
    def seconds(self) -> float | None:
        """Total of all stages, also of stages not used in sampling; None if one was not trained here."""
        known = [stage.seconds for stage in self.stages if stage.seconds is not None]
        return sum(known) if len(known) == len(self.stages) else None


def efforts(plan: Mapping[str, Any], trainings: Mapping[str, Trained | None]) -> list[Effort]:
    """Of every contestant that has a training stage or a grid of its own. trainings: step id -> its record."""
    by_contestant: dict[str, list[StageEffort]] = {}
    for step in plan.get("steps") or []:
        detail = step.get("detail") or {}
        if step.get("kind") == "weights" and "stage" in detail:
            trained = trainings.get(str(step.get("id"))) or Trained()
            by_contestant.setdefault(str(step.get("contestant")), []).append(
                StageEffort(
                    stage=str(detail["stage"]),
                    steps=trained.steps,
                    seconds=trained.seconds,
                    device=trained.device,
                    adopted=detail.get("weights") is not None,
                )
            )
    native = plan.get("native") or {}
    names = [str(one.get("name")) for one in plan.get("contestants") or [] if isinstance(one, Mapping)]
    return [
        Effort(name, _words(native.get(name)), tuple(by_contestant.get(name, ())))
        for name in names
        if name in native or any(stage.steps is not None or stage.adopted for stage in by_contestant.get(name, ()))
    ]


def budget(plan: Mapping[str, Any]) -> str:
    """The budget of each contestant as text; empty if no common budget was set."""
    steps, hours = plan.get("train_steps"), plan.get("train_hours")
    parts = [] if steps is None else [f"{steps:,} steps"]
    parts += [] if hours is None else [f"at most {hours:.4g} h"]
    return ", ".join(parts)


def _words(native: Mapping[str, Any] | None) -> str:
    if native is None:
        return ""
    grid = native["grid"]
    text = "x".join(map(str, grid["shape"])) + " voxels"
    if grid.get("spacing"):
        text += " of " + " x ".join(f"{mm:.3g}" for mm in grid["spacing"]) + " mm"
    low, high = grid["hu_window"]
    return f"{text}, {low} to {high} HU, {CROPPED[native['fit']]} there and back"
