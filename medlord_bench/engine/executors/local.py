"""The executor that works in processes of this machine: one per GPU, or the requested number on a CPU."""

from __future__ import annotations

import os
import selectors
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medlord_bench.engine.executors.processes import WorkerProcess, can_fork, fork, serve_command, start
from medlord_bench.engine.executors.schedule import Schedule, Shard
from medlord_bench.engine.executors.workers_progress import WorkersProgress
from medlord_bench.engine.plan import Step, read_plan
from medlord_bench.engine.steps.kinds import KINDS
from medlord_bench.engine.worker import Settings, pick_device
from medlord_bench.errors import ExitCode, MemoryBudgetError, StepError, Stopped, UserError
from medlord_bench.memory.hold import over_budget, tells_exhausted
from medlord_bench.memory.measured import forecast_of
from medlord_bench.util.interpreter import safe_environment

POLL_SECONDS = 0.1
CRASHES = {-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS}  # of libraries that do not handle a failed allocation


@dataclass(frozen=True)
class _Task:
    """What a worker does. log: its output, after that of earlier tasks. progress: of the step's first shard, if it is."""

    shard: Shard
    log: Path
    size: int
    progress: WorkersProgress | None

    def lines(self) -> list[str]:
        """The output so far."""
        return self.log.read_bytes()[self.size :].decode(errors="replace").splitlines() if self.log.exists() else []


class LocalExecutor:
    """Worker processes on this machine, one per GPU or the requested number, for the whole run.

    Each does one shard of a step after the other, in the order of `Schedule`; several steps are at work at once. On a CPU
    workers are forked from this process, which has the imports; under a memory limit anew for each shard. CUDA cannot
    be used after a fork: there each is started. A worker's last line on stderr is its error.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.forks = can_fork(pick_device(settings.device))
        self.own_cards = settings.gpus == 1 and self._cards() >= settings.workers
        self.workers: list[WorkerProcess] = []
        self.tasks: dict[int, _Task] = {}  # what is at work, by the number of the worker

    def map(self, run_folder: Path, step_id: str, shards: int, stop: Callable[[], bool]) -> None:
        step = read_plan(run_folder).step(step_id)
        only = Schedule([step], begin=lambda _: shards, end=lambda _: None)
        self._carry_out(run_folder, only, shards, stop)

    def carry_out(
        self,
        run_folder: Path,
        steps: Sequence[Step],
        begin: Callable[[Step], int],
        end: Callable[[Step], None],
        stop: Callable[[], bool],
    ) -> None:
        def begin_on_a_new_line(step: Step) -> int:
            for task in self.tasks.values():
                if task.progress:
                    task.progress.hide()
            return begin(step)

        schedule = Schedule(steps, begin_on_a_new_line, end, self.own_cards)
        self._carry_out(run_folder, schedule, self.settings.workers, stop)

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
        self.workers.clear()
        self.tasks.clear()

    def _carry_out(self, run_folder: Path, schedule: Schedule, workers: int, stop: Callable[[], bool]) -> None:
        tasks = self.tasks
        failed: list[tuple[_Task, int]] = []
        while not schedule.is_done and not failed and not stop():
            for number in range(workers):
                if number not in tasks and (shard := schedule.next()) is not None:
                    tasks[number] = self._give(number, shard, workers, run_folder)
            for number, code in self._ended():
                task = tasks.pop(number)
                if code:
                    failed.append((task, code))
                else:
                    schedule.finish(task.shard)
        if schedule.is_done:
            return
        for number in tasks:
            self.workers[number].stop()
        while tasks:
            for number, code in self._ended():
                task = tasks.pop(number)
                if code == 0:
                    schedule.finish(task.shard)
                else:  # a worker that was still starting is ended by the signal itself
                    failed.append((task, ExitCode.REQUEUE if code == -signal.SIGTERM else code))
        self.close()  # a signal to stop may reach a worker after its task
        if not schedule.is_done:
            self._raise_first(run_folder, failed)

    def _give(self, number: int, shard: Shard, workers: int, run_folder: Path) -> _Task:
        """Start a shard in a worker."""
        step = shard.step
        log = _log(run_folder, step.id, shard.number)
        size = log.stat().st_size if log.exists() else 0
        beside = 1 if KINDS[step.kind].alone and not self.own_cards else workers
        arguments = ["worker", str(run_folder), step.id, "--shard", f"{shard.number}/{shard.of}"]
        task = {"shard": shard.number, "arguments": arguments, "log": str(log), "threads": self._threads(beside)}
        self._worker(number, run_folder / "logs").start(task)
        return _Task(shard, log, size, WorkersProgress(log, size, shard.of) if shard.number == 0 else None)

    def _ended(self) -> list[tuple[int, int]]:
        """(number of a worker, exit code) of the tasks that have ended, after at most `POLL_SECONDS`."""
        _show(self.tasks.values())
        codes: list[tuple[int, int]] = []
        with selectors.DefaultSelector() as ready:
            for number in self.tasks:
                ready.register(self.workers[number], selectors.EVENT_READ, number)
            for key, _ in ready.select(POLL_SECONDS):
                codes += [(key.data, code) for code in self.workers[key.data].ended().values()]
        for number, _ in codes:
            if progress := self.tasks[number].progress:
                progress.close()
            # What a step leaves in memory would count in the next.
            if self.forks and isinstance(self.settings.memory_limit, float):
                self.workers[number].close()
        return codes

    def _worker(self, number: int, logs: Path) -> WorkerProcess:
        """The process of a number; it is started if it does not live."""
        if number < len(self.workers) and self.workers[number].lives:
            return self.workers[number]
        for ended in self.workers[number : number + 1]:
            ended.close()
        self.workers[number : number + 1] = [self._start(number, logs / f"workers.{number}.log")]
        return self.workers[number]

    def _cards(self) -> int:
        """The number of cards that the workers are spread over."""
        on_gpus = self.settings.device in ("cuda", "auto") and pick_device(self.settings.device) != "cpu"
        return len(_gpus(os.environ)) if on_gpus else 0

    def _start(self, number: int, log: Path) -> WorkerProcess:
        if self.forks:
            return fork(log, self.workers)
        environment = dict(safe_environment())
        visible = _gpus(environment)
        if visible and self.settings.workers > 1 and self.settings.device in ("cuda", "auto"):
            own = number % len(visible)  # a training on several GPUs uses the ones after its own too
            seen = [*visible[own:], *visible[:own]] if self.settings.gpus > 1 else [visible[own]]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(seen)
        return start(serve_command(), log, environment)

    def _threads(self, workers: int) -> int | None:
        """CPU threads of each of several workers; None if the user set them."""
        if self.settings.threads is not None or "OMP_NUM_THREADS" in os.environ:
            return None
        if self.settings.device not in ("cpu", "auto"):
            return None
        return max(1, len(os.sched_getaffinity(0)) // workers) if hasattr(os, "sched_getaffinity") else 1

    def _raise_first(self, run_folder: Path, failed: Sequence[tuple[_Task, int]]) -> None:
        """failed: the tasks that did not end well, the first failure first, and their exit codes."""
        bad = [(task, code) for task, code in failed if code != ExitCode.REQUEUE]
        if not bad:
            stopped = list(dict.fromkeys(task.shard.step.id for task, _ in failed))
            if not stopped:
                raise Stopped("stopped between steps, everything is saved")
            raise Stopped(f"step{'s' * (len(stopped) > 1)} {', '.join(stopped)}: stopped, saved")
        first, code = bad[0]
        step_id = first.shard.step.id
        lines = [line for task, _ in bad if task.shard.step.id == step_id for line in task.lines()]
        told = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
        if told and code == ExitCode.MEMORY:
            raise MemoryBudgetError(told[-1])  # names the step itself
        if not told:
            self._raise_crash(step_id, code, run_folder, lines)
        if code < 0 and not told:
            killed = " (often by a system without free memory)" if code == -signal.SIGKILL else ""
            how = f"a worker was ended by {signal.Signals(-code).name}{killed}"
            raise StepError(f"step {step_id}: {how}; see {first.log}; the same command resumes")
        said = told[-1] if told else f"see {first.log}"
        known = ExitCode(code) if code in ExitCode._value2member_map_ else ExitCode.FAILED
        raise _error(known, f"step {step_id}: a worker ended with {code}: {said}")

    def _raise_crash(self, step_id: str, code: int, run_folder: Path, lines: list[str]) -> None:
        """Raise `MemoryBudgetError` if a worker died from lack of memory without its own error message.

        Under a limit on a CPU some libraries end the process itself: OpenMP if it cannot start a thread, C++ code that
        does not check allocations.
        """
        limit, device = self.settings.memory_limit, pick_device(self.settings.device)
        if not isinstance(limit, float) or device != "cpu":
            return
        why = [line for line in lines if tells_exhausted(line, starved=True)]
        if code in CRASHES:
            why.append(f"its process was ended by {signal.Signals(-code).name}, see {run_folder / 'logs'}")
        if why:
            step = read_plan(run_folder).step(step_id)
            advice = KINDS[step.kind].less_memory
            raise over_budget(step_id, advice, device, limit, why[-1], forecast_of(run_folder, step_id))


def _error(code: ExitCode, message: str) -> UserError:
    return StepError(message) if code == ExitCode.FAILED else UserError(message, code)


def _show(tasks: Iterable[_Task]) -> None:
    """Show the progress of the steps at work: on a terminal, which has one line for it, of the one that began first."""
    for progress in [task.progress for task in tasks if task.progress]:
        progress.show()
        if progress.in_place:
            return


def _log(run_folder: Path, step_id: str, shard: int) -> Path:
    return run_folder / "logs" / f"{step_id.replace(':', '_').replace('/', '_')}.{shard}.log"


def _gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that workers may use, as CUDA_VISIBLE_DEVICES spells them."""
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [part for part in environment["CUDA_VISIBLE_DEVICES"].split(",") if part]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]
