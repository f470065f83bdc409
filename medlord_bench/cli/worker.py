"""``medlord-bench worker``: one step of a run, or a shard of it. Executors call it; users need not."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import click

from medlord_bench.contracts import World
from medlord_bench.errors import StepError, UserError
from medlord_bench.util.stopping import Stopper

WATCH_SECONDS = 1.0
LATE_SECONDS = 60.0


@click.command(hidden=True)
@click.argument("run_folder", type=click.Path(path_type=Path))
@click.argument("step")
@click.option("--shard", default="0/1", help="i/n: the i-th of n shards.")
@click.option("--rank", default=None, help="r/n: the r-th process of a training on n GPUs, which its first one starts.")
@click.option("--meet", type=int, default=0, help="The port at which they meet.")
def worker(run_folder: Path, step: str, shard: str, rank: str | None, meet: int) -> None:
    """Execute STEP of RUN_FOLDER, or collect its results if STEP is `finish`."""
    from medlord_bench.engine.executors.slurm import FINISH
    from medlord_bench.engine.run_folder import settings_of
    from medlord_bench.engine.worker import execute
    from medlord_bench.util.progress import PlainProgress

    stopper = Stopper()
    stopper.install()
    if rank is not None:
        threading.Thread(target=_end_with_parent, daemon=True, name="parent").start()
        number, size = _part("--rank", rank)
        _follow(run_folder, step, World(size, lambda port: nullcontext(), number, meet))
        return
    index, count = _part("--shard", shard)
    if step == FINISH:
        _finish(run_folder)
        return
    _check_inputs(run_folder, step)
    with _ending_with_parent(stopper):
        execute(run_folder, step, settings_of(run_folder), stopper.stop, index, count, PlainProgress())


def _part(option: str, text: str) -> tuple[int, int]:
    """(i, n) of "i/n"."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UserError(f"{option} {text}: expected i/n with i from 0 below n, such as 0/2")
    return int(index), int(count)


def _check_inputs(run_folder: Path, step: str) -> None:
    """Raise `StepError` if the items that a step reads are not there, which on a cluster may follow from a failed job.

    On a network disk another node's files may appear late: it looks again for a minute.
    """
    from medlord_bench.engine.plan import read_plan
    from medlord_bench.engine.run_folder import settings_of
    from medlord_bench.engine.store import Store
    from medlord_bench.engine.worker import missing

    plan, store = read_plan(run_folder), Store(settings_of(run_folder).store)
    end = time.monotonic() + (LATE_SECONDS if "SLURM_JOB_ID" in os.environ else 0)
    for id in dict.fromkeys(plan.step(step).inputs.values()):
        while left := missing(store, plan.step(id)):
            if time.monotonic() > end:
                raise StepError(
                    f"step {step}: reads {id}, of which {len(left)} items are missing ({left[0]}, ...); run that first"
                )
            time.sleep(1)


def _finish(run_folder: Path) -> None:
    """Collect the results and write the page, once all steps are done."""
    from medlord_bench.cli.run import draw
    from medlord_bench.engine.plan import read_plan
    from medlord_bench.engine.run_folder import settings_of
    from medlord_bench.engine.runner import finish
    from medlord_bench.engine.store import Store
    from medlord_bench.engine.worker import missing

    plan, settings = read_plan(run_folder), settings_of(run_folder)
    settings.export()
    lacking = [step.id for step in plan.steps if missing(Store(settings.store), step)]
    if lacking:
        raise StepError(f"{run_folder}: {len(lacking)} steps are not done ({lacking[0]}, ...); run them first")
    finish(plan, run_folder, settings)
    draw(run_folder)


def _follow(run_folder: Path, step_id: str, world: World) -> None:
    """Train as a process that is not the first: it computes its part of each batch and writes nothing."""
    from medlord_bench.engine.plan import read_plan
    from medlord_bench.engine.ranks import device_of
    from medlord_bench.engine.run_folder import settings_of
    from medlord_bench.engine.steps.job import Job
    from medlord_bench.engine.steps.kinds import KINDS
    from medlord_bench.engine.store import Store
    from medlord_bench.engine.worker import context, pick_device
    from medlord_bench.memory.hold import held
    from medlord_bench.util.progress import SilentProgress

    settings, plan = settings_of(run_folder), read_plan(run_folder)
    settings.export()
    step = plan.step(step_id)
    mine = settings.model_copy(update={"device": device_of(pick_device(settings.device), world.rank)})
    run = replace(context(run_folder, step, mine, lambda: False, SilentProgress()), world=world)
    with held(run.device, run.memory_limit, step.id):
        KINDS[step.kind].run(Job(plan, step, Store(settings.store), run), step.items)


def _end_with_parent() -> None:
    """End this process when its parent is gone: it has nothing to save."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)


@contextmanager
def _ending_with_parent(stopper: Stopper) -> Iterator[None]:
    """Stop cleanly when the parent process is gone (killed), so that the worker does not continue unnoticed."""
    parent, done = os.getppid(), threading.Event()

    def watch() -> None:
        while not done.wait(WATCH_SECONDS):
            if os.getppid() != parent:
                stopper.signal = signal.SIGTERM
                return

    threading.Thread(target=watch, daemon=True, name="parent").start()
    try:
        yield
    finally:
        done.set()
