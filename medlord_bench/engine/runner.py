"""Execute a plan: the missing steps in order, then the results. Also the remaining work, for `plan` and `status`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from medlord_bench.contracts import Executor, SubmitsPlans, registry
from medlord_bench.engine import cleaning
from medlord_bench.engine.collect import collect
from medlord_bench.engine.collect_inputs import log_copies
from medlord_bench.engine.plan import Plan, Step
from medlord_bench.engine.steps.kinds import KINDS
from medlord_bench.engine.store import Store
from medlord_bench.engine.verification import Reused, write_hashes
from medlord_bench.engine.worker import Settings, missing, output, pick_device
from medlord_bench.errors import StepError, Stopped, UserError
from medlord_bench.util.files import write_text
from medlord_bench.util.stopping import Stopper

log = logging.getLogger("medlord_bench")


def carry_out(plan: Plan, run_folder: Path, settings: Settings, stopper: Stopper) -> None:
    """Do every step that is not complete, in order, and collect the results. May raise `Stopped` between steps."""
    store = Store(settings.store)
    if (gone := cleaning.dropped(run_folder)) and cleaning.is_finished(store, run_folder, plan):
        log.info("finished; removed by --keep: %s. To make them again, delete %s", ", ".join(gone), run_folder)
        return
    executor: Executor = registry.load("executors", _executor(settings))(settings)
    with closing(executor):
        if isinstance(executor, SubmitsPlans):
            _submit(plan, run_folder, settings, executor)
        _do_steps(plan, plan.steps, run_folder, settings, stopper, executor)
    finish(plan, run_folder, settings)


def submit(plan: Plan, run_folder: Path, settings: Settings) -> int:
    """Hand a plan to an executor that goes on alone, with a last job that collects the results; returns the number of jobs."""
    executor = registry.load("executors", settings.executor)(settings)
    if not isinstance(executor, SubmitsPlans):
        raise UserError(f"--detach: executor {settings.executor} ends with its command; expected --executor slurm")
    return _submit(plan, run_folder, settings, executor, finish=True)


def _submit(plan: Plan, run_folder: Path, settings: Settings, executor: SubmitsPlans, finish: bool = False) -> int:
    """Check what an earlier run left for the steps to do, then submit them."""
    store = Store(settings.store)
    reused = Reused(store, plan)
    todo = {step.id: missing(store, step) for step in plan.steps}
    for step in plan.steps:
        reused.note(step, todo[step.id])
    for step in plan.steps:
        if todo[step.id]:
            reused.check_inputs(step)
    new = executor.submit(plan, run_folder, finish)
    log.info("submitted %d jobs", new)
    return new


def finish(plan: Plan, run_folder: Path, settings: Settings) -> None:
    """Collect the results of a run whose steps are done."""
    collect(Store(settings.store), plan, run_folder)
    write_hashes(run_folder)
    if settings.keep != "all":
        freed = cleaning.make_lean(Store(settings.store), run_folder, settings.keep)
        log.info("--keep %s: freed %.1f MiB", settings.keep, freed / 2**20)


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
        if not isinstance(executor, SubmitsPlans):  # checked before they were submitted
            reused.check_inputs(step)
        shards = min(settings.workers, len(todo)) if KINDS[step.kind].sharded else 1
        executor.map(run_folder, step.id, shards, stopper.stop)
        left = missing(store, step)
        if left:
            raise StepError(f"step {step.id}: {len(left)} of {len(step.items)} items are missing ({left[0]}, ...)")
        if not output(store, step).manifest().keys() >= set(step.items):  # two shards ended at the same moment
            output(store, step).complete(step.items)
        if step.kind == "images":  # before any training on them
            log_copies(store, plan, step)
    for step in () if isinstance(executor, SubmitsPlans) else steps:
        if step.kind == "scores":
            reused.check(step)


def _executor(settings: Settings) -> str:
    """The executor's name. Under a limit on a CPU, steps run in separate processes: a library may end the whole process
    when an allocation fails, which then ends one step and not the run."""
    limited = isinstance(settings.memory_limit, float) and pick_device(settings.device) == "cpu"
    return "local" if limited and settings.executor == "inline" else settings.executor
