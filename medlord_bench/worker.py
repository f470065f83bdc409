"""Execute one (step, shard) of a run: find what is missing, let the step's handler publish it, record what it took."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from medlord_bench.contracts import Frozen, Run
from medlord_bench.errors import StepError, UserError
from medlord_bench.memory.measured import PeakMemory
from medlord_bench.plan import Plan, Step, read_plan
from medlord_bench.progress import Progress, make_progress
from medlord_bench.store import Store, StoredObject

log = logging.getLogger("medlord_bench")
UNSHARDED = {"weights", "select", "scores"}


class Settings(Frozen):
    """Where and how fast a run works: nothing in here changes a result beyond rounding (docs/architecture.md)."""

    store: Path
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    batch: int = Field(1, ge=1, description="items that a sampling or feature step holds at once")
    threads: int | None = Field(None, ge=1, description="CPU threads of each worker; None leaves torch's choice")
    workers: int = Field(1, ge=1, description="processes (executor local)")
    executor: str = "inline"
    offline: bool = False
    weights_dir: Path | None = Field(None, description="offline folder of pretrained weights")
    max_time: float | None = Field(None, gt=0, description="seconds after which to save and stop with exit 75")

    def export(self) -> None:
        """Put where weights are, and whether the network may be used, where plugins look: also while planning."""
        if self.offline:
            os.environ["MEDLORD_BENCH_OFFLINE"] = "1"
        if self.weights_dir is not None:
            os.environ["MEDLORD_BENCH_WEIGHTS"] = str(self.weights_dir)


def pick_device(wanted: str) -> str:
    """ "auto" to a CUDA device where there is one. Raises `UserError` for a device that is not there."""
    import torch

    if wanted == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        return wanted
    kind, _, number = wanted.partition(":")
    if kind != "cuda" or not (number or "0").isdigit():
        raise UserError(f"--device {wanted}: expected auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available() or int(number or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device {wanted}: torch sees {torch.cuda.device_count()} CUDA devices; see medlord-bench doctor"
        )
    return f"cuda:{number or 0}"


def output(store: Store, step: Step) -> StoredObject:
    return store.object(step.kind, step.key)


def missing(store: Store, step: Step) -> list[str]:
    """The items of a step that are not published yet."""
    return output(store, step).missing(step.items)


def record(run_folder: Path, **event: object) -> None:
    """Append one line to the run's `events.jsonl`; short lines appended at once stay whole between processes."""
    line = json.dumps({"time": round(time.time(), 3), **event}) + "\n"
    with open(run_folder / "events.jsonl", "a") as file:
        file.write(line)


def execute(
    run_folder: Path,
    step_id: str,
    settings: Settings,
    stop: Callable[[], bool],
    shard: int = 0,
    shards: int = 1,
    progress: Progress | None = None,
) -> None:
    """Do shard `shard` of `shards` of one step. Raises `UserError` (and its kinds) with the step named.

    Items are dealt by position, batch b to shard b mod `shards`, so that the same items share a batch whatever the
    number of workers; a step that is complete costs nothing.
    """
    settings.export()
    plan = read_plan(run_folder)
    step = plan.step(step_id)
    store = Store(settings.store)
    todo = set(missing(store, step))
    items = [
        item
        for position, item in enumerate(step.items)
        if position // settings.batch % shards == shard and item in todo
    ]
    if not items:
        return
    output(store, step).declare(step.identity)
    run = _context(run_folder, step, settings, stop, progress or make_progress())
    record(run_folder, step=step.id, event="start", device=run.device, pid=os.getpid(), items=len(items))
    start = time.monotonic()
    try:
        with PeakMemory(run.device) as peak:
            _handle(plan, step, store, run, items)
    except BaseException as error:
        record(run_folder, step=step.id, event="stopped", why=str(error) or type(error).__name__)
        raise
    seconds = round(time.monotonic() - start, 2)
    gib = None if peak.gib is None else round(peak.gib, 3)
    record(run_folder, step=step.id, event="done", seconds=seconds, peak_gib=gib, device=run.device, items=len(items))


def _context(run_folder: Path, step: Step, settings: Settings, stop: Callable[[], bool], progress: Progress) -> Run:
    if settings.threads is not None:
        import torch

        torch.set_num_threads(settings.threads)
    scratch = run_folder / "scratch"
    scratch.mkdir(exist_ok=True)
    return Run(
        device=pick_device(settings.device),
        seed=step.seed,
        progress=progress,
        log=log,
        scratch=scratch,
        stop=stop,
        offline=settings.offline,
        batch=settings.batch,
        weights_dir=settings.weights_dir,
    )


def _handle(plan: Plan, step: Step, store: Store, run: Run, items: list[str]) -> None:
    from medlord_bench.steps import HANDLERS, Job

    try:
        HANDLERS[step.kind](Job(plan, step, store, run), items)
    except UserError:
        raise
    except OSError:
        raise  # a full or read-only disk: the command line names the path
    except Exception as error:
        if _is_out_of_memory(error):
            raise StepError(
                f"step {step.id}: out of memory on {run.device} ({str(error).splitlines()[0]}); "
                "use a smaller --batch, a preset for a smaller card, or another device"
            ) from error
        raise
    output(store, step).complete(item for item in step.items if output(store, step).has(item))


def _is_out_of_memory(error: Exception) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator: can't allocate" in str(error)
