"""The executor that starts one worker process per GPU, or as many as asked for on a CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from medlord_bench.engine.plan import read_plan
from medlord_bench.engine.steps import KINDS
from medlord_bench.engine.worker import Settings, pick_device
from medlord_bench.errors import ExitCode, MemoryBudgetError, StepError, Stopped, UserError
from medlord_bench.memory.hold import over_budget, tells_exhausted
from medlord_bench.memory.measured import forecast_of

POLL_SECONDS = 0.1
CRASHES = {-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS}  # how a library ends that does not expect to get no memory


class LocalExecutor:
    """Worker processes on this machine, one per GPU or as many as asked for.

    A worker's last line on stderr is its error."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def map(self, run_folder: Path, step_id: str, shards: int, stop: Callable[[], bool]) -> None:
        logs = [_log(run_folder, step_id, shard) for shard in range(shards)]
        sizes = [log.stat().st_size if log.exists() else 0 for log in logs]
        workers = [self._start(run_folder, step_id, shard, shards) for shard in range(shards)]
        told = False
        try:
            while any(worker.poll() is None for worker in workers):
                failed = any(worker.poll() not in (None, 0) for worker in workers)
                if (stop() or failed) and not told:
                    told = True
                    _tell(workers)
                time.sleep(POLL_SECONDS)
        except BaseException:
            _tell(workers)
            raise
        codes = [worker.returncode for worker in workers]
        if told:  # a worker that was still starting when it was told ends by the signal itself
            codes = [ExitCode.REQUEUE if code == -signal.SIGTERM else code for code in codes]
        lines = [line for log, size in zip(logs, sizes, strict=True) for line in _lines(log, size)]
        self._raise_first(step_id, codes, run_folder, lines)

    def _start(self, run_folder: Path, step_id: str, shard: int, shards: int) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "medlord_bench",
            "worker",
            str(run_folder),
            step_id,
            "--shard",
            f"{shard}/{shards}",
        ]
        environment = dict(os.environ)
        if self.settings.threads is None and self.settings.device in ("cpu", "auto"):
            cores = max(1, len(os.sched_getaffinity(0)) // shards) if hasattr(os, "sched_getaffinity") else 1
            environment.setdefault("OMP_NUM_THREADS", str(cores))
        visible = _gpus(environment)
        if visible and shards > 1 and self.settings.device in ("cuda", "auto"):
            environment["CUDA_VISIBLE_DEVICES"] = visible[shard % len(visible)]
        with _log(run_folder, step_id, shard).open("ab") as log:
            # Its own process group: Ctrl-C on the terminal reaches the parent, which passes it on once.
            return subprocess.Popen(command, env=environment, stderr=log, stdout=log, start_new_session=True)

    def _raise_first(self, step_id: str, codes: list[int], run_folder: Path, lines: list[str]) -> None:
        """lines: what the workers wrote this time."""
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
        """Raise `MemoryBudgetError` where a worker died without a word of its own for want of memory.

        Under a limit on a CPU some libraries end the process itself: OpenMP where it can start no thread, C++ code that
        expects to get what it asks for.
        """
        limit, device = self.settings.memory_limit, pick_device(self.settings.device)
        if not isinstance(limit, float) or device != "cpu":
            return
        why = [line for line in lines if tells_exhausted(line, starved=True)]
        if code in CRASHES:
            why.append(f"its process died of {signal.Signals(-code).name}, see {run_folder / 'logs'}")
        if why:
            step = read_plan(run_folder).step(step_id)
            advice = KINDS[step.kind].less_memory
            raise over_budget(step_id, advice, device, limit, why[-1], forecast_of(run_folder, step_id))


def _error(code: ExitCode, message: str) -> UserError:
    return StepError(message) if code == ExitCode.FAILED else UserError(message, code)


def _tell(workers: list[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)


def _log(run_folder: Path, step_id: str, shard: int) -> Path:
    return run_folder / "logs" / f"{step_id.replace(':', '_').replace('/', '_')}.{shard}.log"


def _lines(log: Path, start: int) -> list[str]:
    """What was written to a log after its first `start` bytes."""
    return log.read_bytes()[start:].decode(errors="replace").splitlines() if log.exists() else []


def _gpus(environment: dict[str, str]) -> list[str]:
    """The GPUs that workers may use, as CUDA_VISIBLE_DEVICES spells them."""
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [part for part in environment["CUDA_VISIBLE_DEVICES"].split(",") if part]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]
