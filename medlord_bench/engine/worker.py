"""Execute one (step, shard) of a run: find the missing items, let the step's handler publish them, record the cost."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from medlord_bench.contracts import FrozenConfig, Grid, Run
from medlord_bench.engine.executors.slurm_settings import SlurmSettings
from medlord_bench.engine.plan import Plan, Step, read_plan
from medlord_bench.engine.store import Store, StoredObject
from medlord_bench.errors import MemoryBudgetError, StepError, Stopped, UserError
from medlord_bench.memory.allocator import keep_freed_memory
from medlord_bench.memory.hold import held, is_exhausted, limit_on, over_budget
from medlord_bench.memory.measured import PeakMemory, forecast_of
from medlord_bench.util.progress import Progress, make_progress

log = logging.getLogger("medlord_bench")


SMALL_VOXELS, SMALL_BATCH = 2**18, 4


class Settings(FrozenConfig):
    """Place and speed of a run: nothing in here changes a result beyond rounding (docs/architecture.md)."""

    store: Path
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    batch: int | None = Field(
        None, ge=1, description="volumes that a sampling step draws at once; None: 4 of at most 2^18 voxels, else 1"
    )
    threads: int | None = Field(None, ge=1, description="CPU threads of each worker; None leaves torch's choice")
    workers: int = Field(1, ge=1, description="processes (executor local)")
    gpus: int = Field(
        1, ge=1, description="GPUs, or processes on a CPU, of each training stage that can divide its batch"
    )
    executor: str = "inline"
    slurm: SlurmSettings | None = Field(None, description="what the jobs of executor slurm ask for")
    offline: bool = False
    weights_dir: Path | None = Field(None, description="offline folder of pretrained weights")
    keep: Literal["all", "volumes", "features", "scores"] = Field(
        "all", description="what stays of the run once it is finished (docs/disk.md)"
    )
    max_time: float | None = Field(None, gt=0, description="seconds after which to save and stop with exit 75")
    memory_limit: Annotated[float, Field(gt=0)] | Literal["auto"] | None = Field(
        "auto",
        description="memory limit of each process in GiB; auto: 24 on a CUDA device, no limit on a CPU; None: no limit",
    )

    def batch_on(self, grid: Grid) -> int:
        """Volumes of `grid` that are sampled at once. Small networks on small volumes use a CPU fully only in batches."""
        return self.batch or (SMALL_BATCH if prod(grid.shape) <= SMALL_VOXELS else 1)

    def export(self) -> None:
        """Set the weights folder and the use of the network for plugins, also during planning."""
        if self.offline:
            os.environ["MEDLORD_BENCH_OFFLINE"] = "1"
        if self.weights_dir is not None:
            os.environ["MEDLORD_BENCH_WEIGHTS"] = str(self.weights_dir)


def pick_device(wanted: str) -> str:
    """ "auto" to a CUDA device if there is one. Raises `UserError` for a device that does not exist."""
    if wanted == "cpu":
        return wanted
    import torch

    if wanted == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
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
    """Append one line to the run's `events.jsonl`; short lines that are appended in one call are not interleaved
    between processes of a machine. A job of Slurm has a file of its own: nodes that append to one file of a network disk may
    overwrite each other's lines."""
    line = json.dumps({"time": round(time.time(), 3), **event}) + "\n"
    job = os.environ.get("SLURM_JOB_ID", "")
    path = run_folder / "events" / f"{int(job):012d}.jsonl" if job.isdigit() else run_folder / "events.jsonl"
    path.parent.mkdir(exist_ok=True)
    with open(path, "a") as file:
        file.write(line)


def shard_of(position: int, batch: int, shards: int) -> int:
    """The shard of an item, by its position in the step: batch b is of shard b mod `shards`.

    The same items therefore share a batch for any number of workers.
    """
    return position // batch % shards


def execute(
    run_folder: Path,
    step_id: str,
    settings: Settings,
    stop: Callable[[], bool],
    shard: int = 0,
    shards: int = 1,
    progress: Progress | None = None,
) -> None:
    """Execute shard `shard` of `shards` of one step. Raises `UserError` (and its kinds) with the step named.

    A complete step costs nothing.
    """
    settings.export()
    plan = read_plan(run_folder)
    step = plan.step(step_id)
    store = Store(settings.store)
    batch = settings.batch_on(plan.protocol.grid)
    own = [item for position, item in enumerate(step.items) if shard_of(position, batch, shards) == shard]
    items = output(store, step).missing(own)
    if not items:
        return
    output(store, step).declare(step.identity)
    run = replace(context(run_folder, step, settings, stop, progress), batch=batch)
    if step.kind == "weights" and settings.gpus > 1:
        from medlord_bench.engine.ranks import world_of

        run = replace(run, world=world_of(run_folder, step.id, settings.gpus, run.device))
    if run.device == "cpu" and run.memory_limit is None:
        keep_freed_memory()
    record(run_folder, step=step.id, event="start", device=run.device, pid=os.getpid(), items=len(items))
    start = time.monotonic()
    peak = PeakMemory(run.device, run.memory_limit is not None, forecast_of(run_folder, step.id))
    try:
        with peak, held(run.device, run.memory_limit, step.id):
            _handle(plan, step, store, run, items, peak)
    except BaseException as error:
        told = _told(error, step, run, peak)
        record(run_folder, step=step.id, event="stopped", why=str(told) or type(told).__name__)
        if told is error:
            raise
        raise told from error
    seconds = round(time.monotonic() - start, 2)
    done = {"seconds": seconds, "peak_gib": peak.gib, "memory": peak.facts()}
    record(run_folder, step=step.id, event="done", **done, device=run.device, items=len(items))


def context(
    run_folder: Path, step: Step, settings: Settings, stop: Callable[[], bool], progress: Progress | None = None
) -> Run:
    """The `Run` that a plugin gets: device, seed, progress, limits and folders of a step."""
    if settings.threads is not None:
        import torch

        torch.set_num_threads(settings.threads)
    scratch = run_folder / "scratch"
    scratch.mkdir(exist_ok=True)
    device = pick_device(settings.device)
    return Run(
        device=device,
        seed=step.seed,
        progress=progress or make_progress(),
        log=log,
        scratch=scratch,
        stop=stop,
        offline=settings.offline,
        weights_dir=settings.weights_dir,
        memory_limit=limit_on(device, settings.memory_limit),
    )


def _handle(plan: Plan, step: Step, store: Store, run: Run, items: list[str], peak: PeakMemory) -> None:
    from medlord_bench.engine.steps.job import Job
    from medlord_bench.engine.steps.kinds import KINDS

    KINDS[step.kind].run(Job(plan, step, store, run, lambda: {"memory": peak.facts()}), items)
    if not missing(store, step):  # of several shards the last: each would read the sidecars of all
        output(store, step).complete(step.items)


def _told(error: BaseException, step: Step, run: Run, peak: PeakMemory) -> BaseException:
    """The error as shown to the user: running out of memory becomes one line; other errors are unchanged."""
    if isinstance(error, MemoryBudgetError) and step.id not in str(error):  # of a program that a plugin started
        return MemoryBudgetError(f"step {step.id}: {error}; published items are kept")
    limit = run.memory_limit
    if not isinstance(error, Exception | SystemExit) or isinstance(error, MemoryBudgetError | Stopped):
        return error
    if not is_exhausted(error, starved=limit is not None and run.device == "cpu"):
        return error
    why = str(error) or type(error).__name__
    if limit is not None:
        from medlord_bench.engine.steps.kinds import KINDS

        advice = KINDS[step.kind].less_memory
        return over_budget(step.id, advice, run.device, limit, why, peak.forecast, peak.gib)
    if isinstance(error, UserError):
        return error
    return StepError(
        f"step {step.id}: out of memory on {run.device} ({why.splitlines()[0]}); "
        "use a smaller --batch, a preset for a smaller card, or another device"
    )
