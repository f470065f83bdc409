"""Execute a plan: the missing steps, each after those that it needs, then the results."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from medlord_bench.contracts import CarriesOut, Executor, SubmitsPlans, registry
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
    """Do every step that is not complete and collect the results. May raise `Stopped` between steps."""
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
    checks = not isinstance(executor, SubmitsPlans)  # else they were checked before the plan was submitted
    work = _Work(plan, steps, settings, checks)
    if isinstance(executor, CarriesOut):
        executor.carry_out(run_folder, steps, work.begin, work.end, stopper.stop)
    else:
        for step in steps:
            if stopper.stop():
                raise Stopped(f"stopped before step {step.id}, everything is saved")
            if shards := work.begin(step):
                executor.map(run_folder, step.id, shards, stopper.stop)
                work.end(step)
    work.check_results()


class _Work:
    """What is done before and after each step. checks: whether to check the files of earlier runs that steps read."""

    def __init__(self, plan: Plan, steps: Sequence[Step], settings: Settings, checks: bool) -> None:
        self.plan, self.settings, self.checks = plan, settings, checks
        self.numbers = {step.id: f"[{number}/{len(steps)}]" for number, step in enumerate(steps, 1)}
        self.steps = steps
        self.store = Store(settings.store)
        self.reused = Reused(self.store, plan)

    def begin(self, step: Step) -> int:
        """The number of shards of a step that begins now; 0 if it is done already. Raises `StepError` for damaged inputs."""
        todo = missing(self.store, step)
        self.reused.note(step, todo)
        if not todo:
            log.info("%s %s: already done", self.numbers[step.id], step.id)
            return 0
        log.info("%s %s: %d of %d to do", self.numbers[step.id], step.id, len(todo), len(step.items))
        if self.checks:
            self.reused.check_inputs(step)
        return min(self.settings.workers, len(todo)) if KINDS[step.kind].sharded else 1

    def end(self, step: Step) -> None:
        """Complete a step whose shards are done. Raises `StepError` if items are missing."""
        left = missing(self.store, step)
        if left:
            raise StepError(f"step {step.id}: {len(left)} of {len(step.items)} items are missing ({left[0]}, ...)")
        if not output(self.store, step).manifest().keys() >= set(step.items):  # two shards ended at the same moment
            output(self.store, step).complete(step.items)
        if step.kind == "images":  # before any training on them
            log_copies(self.store, self.plan, step)

    def check_results(self) -> None:
        """Check the scores of earlier runs, which no step reads."""
        for step in self.steps if self.checks else ():
            if step.kind == "scores":
                self.reused.check(step)


def _executor(settings: Settings) -> str:
    """The executor's name. Under a limit on a CPU, steps run in separate processes: a library may end the whole process
    when an allocation fails, which then ends one step and not the run."""
    limited = isinstance(settings.memory_limit, float) and pick_device(settings.device) == "cpu"
    return "local" if limited and settings.executor == "inline" else settings.executor
