"""One resumable training loop for every generator.

A `Recipe` defines what one stage optimises. `fit` runs it with prefetching, checkpoints, validation, selection, curves,
TensorBoard and stopping on a signal. Interruption does not change the result: batches are pure functions of the step,
the global random state is seeded from (seed, stage, step) before each step, and the checkpoint contains everything else
that a step reads. A resumed training therefore ends with the same weights (bit-equal on a CPU with the same number of
threads). Only with a time budget (`Run.train_seconds`) does the number of steps depend on the machine's speed.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch

from medlord_bench.contracts import CheckpointSelection, Run, Selection, Stage, candidate_name
from medlord_bench.errors import StepError, Stopped, UserError
from medlord_bench.nn.checkpoints import read_torch
from medlord_bench.nn.ranks import Ranks, current, joined
from medlord_bench.util import seeds
from medlord_bench.util.files import publish, publish_folder, write_json, write_text

CHECKPOINT_SECONDS = 300.0  # a killed process loses at most this much work
TRAINED = "trained.json"  # in a training's folder: number of steps and their seconds, validation included


class Stateful(Protocol):
    """An object whose state is part of a checkpoint: a module, an `Optimiser`, an EMA."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any) -> Any: ...


class Recipe(Protocol):
    """Defines what one training stage optimises."""

    def stateful(self) -> Mapping[str, Stateful]:
        """The content of a checkpoint, by name: networks, optimisers, EMA."""
        ...

    def batch(self, step: int) -> Any:
        """The whole (effective) batch of a step, on the CPU. A pure function of the step, since it is called early."""
        ...

    def step(self, step: int, batch: Any) -> Mapping[str, torch.Tensor | float]:
        """One optimiser step, including micro-batches. Returns scalars to plot; tensors may be on the device."""
        ...

    def validate(self, step: int) -> Mapping[str, float]:
        """Scalars on the validation split; ``"loss"`` selects the best checkpoint (lower is better)."""
        ...

    def export(self, folder: Path) -> None:
        """Write the weights for later stages and sampling (`checkpoints.save_model`)."""
        ...


@runtime_checkable
class DividesBatch(Protocol):
    """A recipe that computes only the micro-batches of its rank (`ranks.current().parts`) and sums what a step needs."""

    @property
    def micro_batches(self) -> int:
        """Of one optimiser step."""
        ...


class StageConfig(Protocol):
    """The fields of a stage's configuration for validation, checkpoints and checkpoint selection."""

    @property
    def validate_every(self) -> int: ...
    @property
    def checkpoint_every(self) -> int: ...
    @property
    def selection(self) -> Selection | Literal["fid"]: ...


@dataclass(frozen=True)
class Horizon:
    """The length of a training and its intervals of validation and checkpoints.

    selection: which weights are published. choice: candidates to publish instead, if the bench selects the checkpoint.
    """

    steps: int
    validate_every: int
    checkpoint_every: int
    selection: Selection = "best"
    choice: CheckpointSelection | None = None

    @classmethod
    def of(cls, config: StageConfig, stage: Stage) -> Horizon:
        """The horizon of a stage. With selection "fid" the training does not select; the bench does, by `choice`."""
        selection: Selection = "last" if config.selection == "fid" else config.selection
        return cls(stage.steps or 0, config.validate_every, config.checkpoint_every, selection, stage.choice)


def _prefetched(recipe: Recipe, start: int, stop: int, ahead: int = 2) -> Iterator[tuple[int, Any]]:
    """(step, batch); a background thread prepares batches `ahead` steps early."""
    # The pool's operations have one thread: a second team of threads would make every convolution wait. The number is
    # one of each thread, but new threads take the last one that was set.
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(1, "batches", torch.set_num_threads, (1,)) as pool:
        waiting = [pool.submit(recipe.batch, step) for step in range(start, min(start + ahead, stop))]
        try:
            for step in range(start, stop):
                batch = waiting.pop(0).result()
                if step + ahead < stop:
                    waiting.append(pool.submit(recipe.batch, step + ahead))
                yield step, batch
        finally:
            for future in waiting:
                future.cancel()
            torch.set_num_threads(threads)


class Curves:
    """`curves.jsonl` (for the report) and TensorBoard events (for monitoring). Lines after step `start` are removed."""

    def __init__(self, out: Path, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = out / "curves.jsonl"
        kept = []
        if self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if _step_of(line) <= start]
        write_text(self.path, "".join(line + "\n" for line in kept))
        self.board = SummaryWriter(str(out / "tensorboard"), purge_step=start)

    def add(self, step: int, figures: Mapping[str, float], split: str = "train") -> None:
        with open(self.path, "a") as file:
            file.write(json.dumps({"step": step, "split": split, **figures}) + "\n")
        for name, value in figures.items():
            self.board.add_scalar(f"{name}/{split}", value, step)

    def close(self) -> None:
        self.board.close()


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):  # a line truncated by a killed process
        return 2**63


def _floats(figures: Mapping[str, torch.Tensor | float]) -> dict[str, float]:
    return {name: float(value) for name, value in figures.items()}


class _Checkpoint:
    """`checkpoints/last.pt`: number of steps, best validation loss, seconds of training, and all states."""

    def __init__(self, out: Path, recipe: Recipe) -> None:
        self.path, self.recipe = out / "checkpoints" / "last.pt", recipe
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.saved_at = self.began = time.monotonic()
        self.earlier = 0.0  # seconds of earlier calls

    @property
    def seconds(self) -> float:
        """Seconds of this training including earlier calls, without the work that a killed process lost."""
        return self.earlier + time.monotonic() - self.began

    def load(self, device: str) -> tuple[int, float]:
        """Restore every state; returns (steps done, best loss). (0, inf) if nothing was saved."""
        if not self.path.exists():
            return 0, math.inf
        saved = read_torch(self.path)
        for name, part in self.recipe.stateful().items():
            part.load_state_dict(saved["state"][name])
        self.earlier, self.began = float(saved["seconds"]), time.monotonic()
        return int(saved["step"]), float(saved["best"])

    def save(self, step: int, best: float) -> None:
        state = {name: part.state_dict() for name, part in self.recipe.stateful().items()}
        saved = {"step": step, "best": best, "seconds": self.seconds, "state": state}
        publish(self.path, lambda path: torch.save(saved, path))
        self.saved_at = time.monotonic()

    def is_due(self) -> bool:
        return time.monotonic() - self.saved_at > CHECKPOINT_SECONDS


def _export(recipe: Recipe, folder: Path) -> Path:
    """Export to `folder`. An existing folder is replaced only when the new one is complete."""
    publish_folder(folder, recipe.export)
    return folder


def _validate(recipe: Recipe, step: int, curves: Curves) -> float:
    figures = recipe.validate(step)
    curves.add(step, figures, split="val")
    loss = figures["loss"]
    return loss if math.isfinite(loss) else math.inf


def fit(recipe: Recipe, horizon: Horizon, out: Path, run: Run, title: str) -> Path:
    """As `_fit`, on all processes of `run.world` if the recipe divides its batch (`DividesBatch`).

    Raises `UserError` for more processes than a batch has micro-batches.
    """
    world = run.world
    if world is None or not isinstance(recipe, DividesBatch):
        if world is not None:
            run.log.warning("%s: trains on one GPU; its batch cannot be divided", title)
        return _fit(recipe, horizon, out, run, title)
    if recipe.micro_batches < world.size:
        raise UserError(
            f"{title}: --gpus {world.size}, but a batch has {recipe.micro_batches} micro-batches; give a smaller --gpus, or a "
            "smaller micro_batch"
        )
    with joined(world, run.device) as ranks:
        if ranks.leads:
            return _fit(recipe, horizon, out, run, title)
        return _follow(recipe, out, run, title, ranks)


def _follow(recipe: Recipe, out: Path, run: Run, title: str, ranks: Ranks) -> Path:
    """Train as one of several processes that is not the first: compute its micro-batches, and write nothing."""
    _Checkpoint(out, recipe).load(run.device)
    start, stop = ranks.told(0, 0)
    for step, batch in _prefetched(recipe, start, stop):
        seeds.set_global(seeds.derive(run.seed, title, step))
        recipe.step(step, batch)
        if ranks.told(0) == [1]:
            break
    return out


def _fit(recipe: Recipe, horizon: Horizon, out: Path, run: Run, title: str) -> Path:
    """Train `recipe` in the folder `out` up to `horizon.steps`, continuing after an earlier call.

    Training ends earlier if `run.train_seconds` are spent, summed over all calls, but after at least one step.
    Returns the folder below `out` with the selected weights. Raises `Stopped` after saving if `run.stop()` is true, and
    `StepError` if gradients remain non-finite. With `selection="best"`, weights are validated every `validate_every`
    steps and at the last step; of equal losses the earlier is selected. With a `choice`, the returned folder contains
    one folder of weights per candidate. `TRAINED` records the number of steps and seconds.
    """
    candidates = horizon.choice.candidates(horizon.steps) if horizon.choice else ()
    ranks = current()
    checkpoint = _Checkpoint(out, recipe)
    start, best = checkpoint.load(run.device)
    done, budget = start, math.inf if run.train_seconds is None else run.train_seconds
    if start > horizon.steps:
        raise StepError(
            f"{title}: this training is already at step {start}, beyond the requested {horizon.steps}; "
            "request at least as many steps, or use another seed for a separate training"
        )
    curves = Curves(out, start)
    log_every = max(1, min(horizon.validate_every, horizon.steps // 200))
    shown_at = start
    try:
        with run.progress.task(title, horizon.steps, start) as task:
            stop = horizon.steps if start == 0 or checkpoint.seconds < budget else start
            ranks.told(start, stop)
            for step, batch in _prefetched(recipe, start, stop):
                seeds.set_global(seeds.derive(run.seed, title, step))
                figures = recipe.step(step, batch)
                stopping = run.stop()  # before anything is written: it raises if another run has taken over
                done = step + 1
                last = done == horizon.steps or checkpoint.seconds >= budget
                ranks.told(int(last or stopping))
                if done % log_every == 0 or last:
                    shown = _floats(figures)
                    curves.add(done, shown)
                    task.advance(done - shown_at, **shown)
                    shown_at = done
                if done % horizon.validate_every == 0:
                    loss = _validate(recipe, done, curves)
                    if loss < best:
                        best = loss
                        _export(recipe, out / "best")
                if done in candidates:
                    _export(recipe, out / "candidates" / candidate_name(done))
                if done % horizon.checkpoint_every == 0 or last or checkpoint.is_due():
                    checkpoint.save(done, best)
                if last:
                    break
                if stopping:
                    checkpoint.save(done, best)
                    raise Stopped(f"{title}: stopped at step {done} of {horizon.steps}, saved")
        published = _publishable(recipe, replace(horizon, steps=done), out, best, curves)
        write_json(out / TRAINED, {"steps": done, "seconds": round(checkpoint.seconds, 1)})
        return published
    finally:
        curves.close()


def _publishable(recipe: Recipe, horizon: Horizon, out: Path, best: float, curves: Curves) -> Path:
    """The folder of the selected weights. The last step is validated too, without effect on a later longer training."""
    if horizon.choice is not None:
        if not (out / "candidates" / candidate_name(horizon.steps)).exists():
            _export(recipe, out / "candidates" / candidate_name(horizon.steps))
        return out / "candidates"
    if horizon.selection == "last" or horizon.steps == 0:
        return _export(recipe, out / "last")
    if horizon.steps % horizon.validate_every and _validate(recipe, horizon.steps, curves) < best:
        return _export(recipe, out / "final")
    if not (out / "best" / "model.json").exists():
        raise StepError(f"{out}: no checkpoint had a finite validation loss; lower the learning rate")
    return out / "best"
