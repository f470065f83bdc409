"""The executor that submits a whole plan to Slurm: one array for each step, which waits for the arrays of its inputs.

A stopped job requeues itself, and the store says what is done. A user watches the run, or leaves it alone (`--detach`); then a last
job collects the results. The same command again submits only what is missing and not in the queue. `queue.json` in the run folder has the ids of all jobs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from medlord_bench.engine import lease
from medlord_bench.engine.executors import sbatch
from medlord_bench.engine.executors.sbatch import Job, Needs, Task, file_name
from medlord_bench.engine.executors.slurm_settings import SlurmSettings
from medlord_bench.engine.plan import Plan, Step, read_plan
from medlord_bench.engine.steps.kinds import KINDS
from medlord_bench.engine.store import Store
from medlord_bench.engine.worker import Settings, missing, shard_of
from medlord_bench.errors import ExitCode, MemoryBudgetError, StepError, Stopped, UserError
from medlord_bench.util.documents import parse_json
from medlord_bench.util.files import write_json

log = logging.getLogger("medlord_bench")

QUEUE = "queue.json"
FINISH = "finish"  # the last job of a run that nobody watches
POLL_SECONDS = 5.0
SETTLE_SECONDS = 60.0  # a network file system may show what another node wrote that late
PATIENCE_SECONDS = 900.0  # for a controller that does not answer
LOGS = "logs"


# ------------------------------------------------------------------------------------------------------- what is queued
def recorded(run_folder: Path) -> list[dict[str, Any]]:
    """Every job of a run that was ever submitted, the oldest first: {"job", "step", "tasks", "shards"}."""
    path = run_folder / QUEUE
    if not path.exists():
        return []
    try:
        jobs = parse_json(path.read_text())["jobs"]
        return [dict(one) for one in jobs]
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path}: damaged; expected the jobs of this run: remove it after cancelling them with scancel"
        ) from None


def queued(run_folder: Path) -> dict[str, list[Task]]:
    """Step -> its tasks that the queue knows. Raises `StepError` if the queue does not answer."""
    jobs = {str(one["job"]): str(one["step"]) for one in recorded(run_folder)}
    found: dict[str, list[Task]] = {}
    for task in sbatch.tasks_of(jobs):
        found.setdefault(jobs[task.job], []).append(task)
    return found


def newest(tasks: Iterable[Task]) -> list[Task]:
    """Of each task of a step the one that was submitted last: the queue also knows those that failed before."""
    found: dict[int, Task] = {}
    for task in sorted(tasks, key=lambda task: int(task.job)):
        found[task.index] = task
    return list(found.values())


def summary(tasks: Iterable[Task]) -> str:
    """Tasks by state: "3 running, 2 pending (Priority)"."""
    counts: dict[str, int] = {}
    for task in tasks:
        waits = f" ({task.reason})" if task.state == "PENDING" and task.reason not in ("None", "") else ""
        name = task.state.lower().replace("_", " ") + waits
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def cancel(run_folder: Path) -> int:
    """Cancel the jobs of a run that are in the queue; returns how many."""
    living = {task.job for tasks in queued(run_folder).values() for task in tasks if task.state not in sbatch.ENDED}
    sbatch.cancel(sorted(living))
    return len(living)


# ------------------------------------------------------------------------------------------------------------ what to do
def jobs_of(
    plan: Plan,
    run_folder: Path,
    settings: Settings,
    busy: dict[str, list[Task]],
    shards_of: dict[str, int],
    finish: bool,
) -> list[Job]:
    """The arrays that a run still needs. busy: tasks that are in the queue already. shards_of: into how many their step was
    divided; such a step with another division is left alone. finish: whether a last job collects the results."""
    store, slurm = Store(settings.store), settings.slurm or SlurmSettings()
    batch = settings.batch_on(plan.protocol.grid)
    jobs: list[Job] = []
    for step in plan.steps:
        todo = set(missing(store, step))
        shards = shards_for(step, settings.workers, batch)
        living = {task.index for task in busy.get(step.id, ()) if task.lives}
        if living and shards_of.get(step.id) != shards:
            continue
        wanted = {shard_of(place, batch, shards) for place, item in enumerate(step.items) if item in todo} - living
        if wanted:
            words = ["worker", str(run_folder), step.id]
            jobs.append(_job(plan, run_folder, step.id, step.kind, words, sorted(wanted), shards, slurm, step.needs))
    if finish and not any(task.lives for task in busy.get(FINISH, ())):
        words = ["worker", str(run_folder), FINISH]
        jobs.append(_job(plan, run_folder, FINISH, "scores", words, [0], 1, slurm, [step.id for step in plan.steps]))
    return jobs


def shards_for(step: Step, workers: int, batch: int) -> int:
    """Into how many tasks a step is divided: the same whatever of it is done, since an item's task follows from its place."""
    if not KINDS[step.kind].sharded:
        return 1
    batches = -(-len(step.items) // batch)
    return max(1, min(workers, batches, sbatch.MOST_TASKS))


def _job(
    plan: Plan, run_folder: Path, name: str, kind: str, words: Sequence[str], tasks: Sequence[int], shards: int,
    slurm: SlurmSettings, after: Sequence[str],
) -> Job:  # fmt: skip
    title = f"mb-{plan.run_key[:8]}-{file_name(name)}"
    return sbatch.job(name, kind, words, tasks, shards, run_folder / LOGS, title, slurm, after)


class SlurmExecutor:
    """Submits a plan (`submit`) and waits for its steps one after the other (`map`). Stopping it leaves the jobs alone."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.poll = POLL_SECONDS

    def submit(self, plan: Plan, run_folder: Path, finish: bool = False) -> int:
        """Submit what is missing and not in the queue; returns the number of new jobs.

        Raises `UserError` if another command does so now, or Slurm refuses a job: those before it are cancelled then.
        """
        try:
            with lease.held(run_folder / "submission"):
                return self._submit(plan, run_folder, finish)
        except lease.HeldError:
            raise UserError(
                f"{run_folder}: another command submits this run now; wait for it, then see medlord-bench status"
            ) from None

    def _submit(self, plan: Plan, run_folder: Path, finish: bool) -> int:
        known = recorded(run_folder)
        busy = queued(run_folder)
        shards_of = {str(one["step"]): int(one["shards"]) for one in known}
        jobs = jobs_of(plan, run_folder, self.settings, busy, shards_of, finish)
        new: dict[str, str] = {}
        old = {step: sorted({task.job for task in tasks if task.lives}) for step, tasks in busy.items()}
        try:
            for one in jobs:
                needs = Needs(
                    [new[name] for name in one.after if name in new],
                    [id for name in one.after for id in old.get(name, ())],
                )
                new[one.name] = sbatch.submit(one, needs)
                known.append({"job": new[one.name], "step": one.name, "tasks": list(one.tasks), "shards": one.shards})
                write_json(run_folder / QUEUE, {"jobs": known})
        except UserError:
            with suppress(UserError):
                sbatch.cancel(list(new.values()))
            raise
        return len(new)

    def map(self, run_folder: Path, step_id: str, shards: int, stop: Callable[[], bool]) -> None:
        """Wait until a step is done. Raises `StepError` with the state and the last line of a task that failed."""
        step = read_plan(run_folder).step(step_id)
        store = Store(self.settings.store)
        said, quiet_since, ended_since = "", None, None
        while left := missing(store, step):
            self._sleep(stop, step_id)
            try:
                tasks = newest(queued(run_folder).get(step_id, []))
                quiet_since = None
            except StepError as error:
                quiet_since = quiet_since or time.monotonic()
                if time.monotonic() - quiet_since > PATIENCE_SECONDS:
                    raise
                log.warning("%s; trying again", error)
                continue
            if (now := f"{len(left)} of {len(step.items)} to do; {summary(tasks)}") != said:
                log.info("%s: %s", step_id, now)
                said = now
            bad = [task for task in tasks if not task.lives and task.state not in ("COMPLETED", "PENDING")]
            if any(task.lives for task in tasks):
                ended_since = None
                continue
            ended_since = ended_since or time.monotonic()
            if not missing(store, step):  # looked before the queue was asked
                return
            if bad or time.monotonic() - ended_since > SETTLE_SECONDS:
                raise self._failure(run_folder, step_id, bad or tasks)

    def close(self) -> None:
        pass

    def _sleep(self, stop: Callable[[], bool], step_id: str) -> None:
        end = time.monotonic() + self.poll
        while time.monotonic() < end:
            if stop():
                raise Stopped(
                    f"step {step_id}: no longer watched; its jobs stay in the queue (end them with medlord-bench cancel)"
                )
            time.sleep(0.2)

    def _failure(self, run_folder: Path, step_id: str, bad: Sequence[Task]) -> UserError:
        """The error of a step whose tasks have ended without its items."""
        if not bad:
            return StepError(f"step {step_id}: no job of it is in the queue; the same command submits it again")
        task = bad[0]
        path = run_folder / LOGS / f"{file_name(step_id)}.{task.job}_{task.index}.out"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        told = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        where = f"step {step_id}: task {task.index}{more} ended {task.state}"
        again = "the same command submits only what failed"
        if task.state == "OUT_OF_MEMORY" or any("oom_kill" in line or "oom-kill" in line for line in lines[-20:]):
            return MemoryBudgetError(f"{where}: killed for memory; give --slurm memory=SIZE, {again}")
        advice = {"TIMEOUT": "give --slurm time=LIMIT; ", "CANCELLED": "it was cancelled; "}.get(task.state, "")
        return StepError(f"{where}: {told[-1] + '; ' if told else advice}{again}; see {path}", ExitCode.FAILED)
