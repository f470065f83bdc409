"""The executor that works in processes of this machine: one per GPU, or the requested number on a CPU."""

from __future__ import annotations

import os
import selectors
import signal
from collections.abc import Callable
from pathlib import Path
from typing import cast

from medlord_bench.engine.executors.processes import WorkerProcess, can_fork, fork, serve_command, start
from medlord_bench.engine.executors.workers_progress import WorkersProgress
from medlord_bench.engine.plan import read_plan
from medlord_bench.engine.steps.kinds import KINDS
from medlord_bench.engine.worker import Settings, pick_device
from medlord_bench.errors import ExitCode, MemoryBudgetError, StepError, Stopped, UserError
from medlord_bench.memory.hold import over_budget, tells_exhausted
from medlord_bench.memory.measured import forecast_of
from medlord_bench.util.interpreter import safe_environment

POLL_SECONDS = 0.1
CRASHES = {-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS}  # of libraries that do not handle a failed allocation


class LocalExecutor:
    """Worker processes on this machine, one per GPU or the requested number, for the whole run.

    Each executes its shard of one step after the other. On a CPU they are forked from this process, which has the
    imports; under a memory limit anew for each step. CUDA cannot be used after a fork: there each is started.
    A worker's last line on stderr is its error.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.forks = can_fork(pick_device(settings.device))
        self.workers: list[WorkerProcess] = []

    def map(self, run_folder: Path, step_id: str, shards: int, stop: Callable[[], bool]) -> None:
        logs = [_log(run_folder, step_id, shard) for shard in range(shards)]
        sizes = [log.stat().st_size if log.exists() else 0 for log in logs]
        workers = self._workers(run_folder / "logs", shards)
        for shard, (worker, log) in enumerate(zip(workers, logs, strict=True)):
            arguments = ["worker", str(run_folder), step_id, "--shard", f"{shard}/{shards}"]
            worker.start({"shard": shard, "arguments": arguments, "log": str(log), "threads": self._threads(shards)})
        codes = _wait(workers, shards, stop, WorkersProgress(logs[0], sizes[0], shards))
        # What a step leaves in memory would count in the next; and a signal to stop may reach a worker after its task.
        if any(codes) or (self.forks and isinstance(self.settings.memory_limit, float)):
            self.close()
        failed = [shard for shard, code in enumerate(codes) if code not in (0, ExitCode.REQUEUE)]
        lines = [line for shard in failed for line in _lines(logs[shard], sizes[shard])]
        self._raise_first(step_id, codes, run_folder, lines)

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
        self.workers.clear()

    def _workers(self, logs: Path, shards: int) -> list[WorkerProcess]:
        """The processes for a step of this many shards; those that do not live are started."""
        for number in range(shards):
            if number < len(self.workers) and self.workers[number].lives:
                continue
            for ended in self.workers[number : number + 1]:
                ended.close()
            self.workers[number : number + 1] = [self._start(number, logs / f"workers.{number}.log")]
        return self.workers[:shards]

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

    def _threads(self, shards: int) -> int | None:
        """CPU threads of each worker of a step; None if the user set them."""
        if self.settings.threads is not None or "OMP_NUM_THREADS" in os.environ:
            return None
        if self.settings.device not in ("cpu", "auto"):
            return None
        return max(1, len(os.sched_getaffinity(0)) // shards) if hasattr(os, "sched_getaffinity") else 1

    def _raise_first(self, step_id: str, codes: list[int], run_folder: Path, lines: list[str]) -> None:
        """lines: output of the failed workers in this step."""
        bad = [code for code in codes if code not in (0, ExitCode.REQUEUE)]
        if not bad:
            if ExitCode.REQUEUE in codes:
                raise Stopped(f"step {step_id}: stopped, saved")
            return
        told = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
        if told and bad[0] == ExitCode.MEMORY:
            raise MemoryBudgetError(told[-1])  # names the step itself
        if not told:
            self._raise_crash(step_id, bad[0], run_folder, lines)
        code = ExitCode(bad[0]) if bad[0] in ExitCode._value2member_map_ else ExitCode.FAILED
        said = told[-1] if told else f"see {run_folder / 'logs'}"
        raise _error(code, f"step {step_id}: a worker ended with {bad[0]}: {said}")

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


def _wait(workers: list[WorkerProcess], shards: int, stop: Callable[[], bool], progress: WorkersProgress) -> list[int]:
    """The exit code of each shard once all have ended; if one fails, the others are asked to stop."""
    codes: dict[int, int] = {}
    told = False
    with selectors.DefaultSelector() as ready:
        for worker in workers:
            ready.register(worker, selectors.EVENT_READ)
        while len(codes) < shards:
            progress.show()
            for key, _ in ready.select(POLL_SECONDS):
                worker = cast(WorkerProcess, key.fileobj)
                codes |= worker.ended()
                if not worker.tasks:
                    ready.unregister(worker)
            if (stop() or any(codes.values())) and not told:
                told = True
                for worker in workers:
                    worker.stop()
    progress.close()
    if told:  # a worker that was still starting is ended by the signal itself
        codes = {shard: ExitCode.REQUEUE if code == -signal.SIGTERM else code for shard, code in codes.items()}
    return [codes[shard] for shard in range(shards)]


def _log(run_folder: Path, step_id: str, shard: int) -> Path:
    return run_folder / "logs" / f"{step_id.replace(':', '_').replace('/', '_')}.{shard}.log"


def _lines(log: Path, start: int) -> list[str]:
    """The content of a log after its first `start` bytes."""
    return log.read_bytes()[start:].decode(errors="replace").splitlines() if log.exists() else []


def _gpus(environment: dict[str, str]) -> list[str]:
    """The GPUs that workers may use, as CUDA_VISIBLE_DEVICES spells them."""
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [part for part in environment["CUDA_VISIBLE_DEVICES"].split(",") if part]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]
