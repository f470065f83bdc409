"""The executor that starts one worker process per GPU, or as many as asked for on a CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from medlord_bench.errors import ExitCode, StepError, Stopped, UserError
from medlord_bench.worker import Settings

POLL_SECONDS = 0.1


class LocalExecutor:
    """Worker processes on this machine, one per GPU or as many as asked for.

    A worker's last line on stderr is its error."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def map(self, run_folder: Path, step_id: str, shards: int, stop: Callable[[], bool]) -> None:
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
        self._raise_first(step_id, codes, run_folder)

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
        log = (run_folder / "logs" / f"{step_id.replace(':', '_').replace('/', '_')}.{shard}.log").open("ab")
        with log:
            # Its own process group: Ctrl-C on the terminal reaches the parent, which passes it on once.
            return subprocess.Popen(command, env=environment, stderr=log, stdout=log, start_new_session=True)

    def _raise_first(self, step_id: str, codes: list[int], run_folder: Path) -> None:
        bad = [code for code in codes if code not in (0, ExitCode.REQUEUE)]
        if bad:
            code = ExitCode(bad[0]) if bad[0] in ExitCode._value2member_map_ else ExitCode.FAILED
            raise _error(code, f"step {step_id}: a worker ended with {bad[0]}: {_last_line(run_folder, step_id)}")
        if ExitCode.REQUEUE in codes:
            raise Stopped(f"step {step_id}: stopped, saved")


def _error(code: ExitCode, message: str) -> UserError:
    return StepError(message) if code == ExitCode.FAILED else UserError(message, code)


def _tell(workers: list[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)


def _last_line(run_folder: Path, step_id: str) -> str:
    logs = sorted((run_folder / "logs").glob(f"{step_id.replace(':', '_').replace('/', '_')}.*.log"))
    lines = [
        line for log in logs for line in log.read_text(errors="replace").splitlines() if line.startswith("Error: ")
    ]
    return lines[-1].removeprefix("Error: ") if lines else f"see {run_folder / 'logs'}"


def _gpus(environment: dict[str, str]) -> list[str]:
    """The GPUs that workers may use, as CUDA_VISIBLE_DEVICES spells them."""
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [part for part in environment["CUDA_VISIBLE_DEVICES"].split(",") if part]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]
