"""Execute a plan: the missing steps in order, then the results. Also the remaining work, for `plan` and `status`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from medlord_bench.contracts import Executor, registry
from medlord_bench.engine.collect import collect
from medlord_bench.engine.collect_inputs import log_copies
from medlord_bench.engine.plan import Plan, Step
from medlord_bench.engine.steps.kinds import KINDS
from medlord_bench.engine.store import Store
from medlord_bench.engine.verification import Reused, write_hashes
from medlord_bench.engine.worker import Settings, missing, pick_device
from medlord_bench.errors import StepError, Stopped
from medlord_bench.util.files import write_text
from medlord_bench.util.stopping import Stopper

log = logging.getLogger("medlord_bench")


def carry_out(plan: Plan, run_folder: Path, settings: Settings, stopper: Stopper) -> None:
    """Do every step that is not complete, in order, and collect the results. May raise `Stopped` between steps."""
    executor: Executor = registry.load("executors", _executor(settings))(settings)
    with closing(executor):
        _do_steps(plan, plan.steps, run_folder, settings, stopper, executor)
    collect(Store(settings.store), plan, run_folder)
    write_hashes(run_folder)


def carry_out_steps(plan: Plan, steps: Sequence[Step], settings: Settings, stopper: Stopper) -> None:
    """Do some steps of a plan without a run folder, those that are not complete. May raise `Stopped` between steps."""
    executor: Executor = registry.load("executors", _executor(settings))(settings)
    with TemporaryDirectory() as folder, closing(executor):
        (Path(folder) / "logs").mkdir()
        write_text(Path(folder) / "plan.json", plan.model_dump_json())
        _do_steps(plan, steps, Path(folder), settings, stopper, executor)


def _do_steps(
    plan: Plan, steps: Sequence[Step], run_folder: Path, settings: Settings, stopper: Stopper, executor: Executor
) -> None:
    store = Store(settings.store)
    reused = Reused(store, plan)
    for number, step in enumerate(steps, 1):
        if stopper.stop():
            raise Stopped(f"stopped before step {step.id}, everything is saved")
        todo = missing(store, step)
        reused.note(step, todo)
        where = f"[{number}/{len(steps)}] {step.id}"
        if not todo:
            log.info("%s: already done", where)
            continue
        log.info("%s: %d of %d to do", where, len(todo), len(step.items))
        reused.check_inputs(step)
        shards = min(settings.workers, len(todo)) if KINDS[step.kind].sharded else 1
        executor.map(run_folder, step.id, shards, stopper.stop)
        left = missing(store, step)
        if left:
            raise StepError(f"step {step.id}: {len(left)} of {len(step.items)} items are missing ({left[0]}, ...)")
        if step.kind == "images":  # before any training on them
            log_copies(store, plan, step)
    for step in steps:
        if step.kind == "scores":
            reused.check(step)


def _executor(settings: Settings) -> str:
    """The executor's name. Under a limit on a CPU, steps run in separate processes: a library may end the whole process
    when an allocation fails, which then ends one step and not the run."""
    limited = isinstance(settings.memory_limit, float) and pick_device(settings.device) == "cpu"
    return "local" if limited and settings.executor == "inline" else settings.executor
