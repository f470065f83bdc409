"""Runs nnU-Net in its own process and folders, shows its progress, and explains why it ended."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medlord_bench.contracts import Run
from medlord_bench.errors import StepError, Stopped
from medlord_bench.memory.children import Watch
from medlord_bench.util.files import write_json
from medlord_bench.util.interpreter import module_command, safe_environment

POLL_SECONDS = 0.2
LINE_LENGTH = 300
SETTINGS = "MEDLORD_BENCH_TRAINER"  # as in trainers/nnUNetTrainerBench.py
FOLDERS = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "preprocessed", "nnUNet_results": "results"}
WORKER_DEATHS = re.compile(
    r"background workers are no longer alive|background worker is 6 feet under|BrokenProcessPool"
)
DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded")
COMMAND = tuple(module_command("medlord_bench.metrics.downstream.child"))


@dataclass(frozen=True)
class Work:
    """One call of nnU-Net. folder: of its data, models, log and progress. title: for messages and progress.

    settings: of `child`. trainer: of the external trainer. epochs: of the training; 0 for work without any.
    """

    title: str
    folder: Path
    settings: Mapping[str, Any]
    trainer: Mapping[str, Any]
    epochs: int = 0

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def progress(self) -> Path:
        """One line of JSON for each epoch, over all sessions."""
        return self.folder / "progress.jsonl"


def carry_out(work: Work, run: Run) -> None:
    """Run it to its end. Raises `Stopped` when `run.stop()` is true, `MemoryBudgetError` over the limit, and `StepError`
    that says why it ended otherwise."""
    write_json(work.folder / "settings.json", dict(work.settings))
    temporary = Path(tempfile.mkdtemp(prefix="mb-"))  # a short path: it contains sockets
    log_start = work.log.stat().st_size if work.log.exists() else 0
    with open(work.log, "ab") as log:
        process = subprocess.Popen(
            [*COMMAND, str(work.folder / "settings.json")],
            stdin=subprocess.PIPE,  # its end ends the process: it outlives no bench that was killed
            stdout=log,
            stderr=log,
            env=environment(work, run, temporary),
            start_new_session=True,
        )
    watch = Watch(work.title, process.pid, run)
    try:
        _wait(process, work, run, watch)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdin is not None
        process.stdin.close()
        shutil.rmtree(temporary, ignore_errors=True)
    if process.returncode:
        said = work.log.read_bytes()[log_start:].decode(errors="replace")
        watch.judge(said[-LINE_LENGTH * 10 :])
        raise StepError(f"{work.title}: {why(process.returncode, said)}; see {work.log}")


def _wait(process: subprocess.Popen[bytes], work: Work, run: Run, watch: Watch) -> None:
    told = len(epochs_of(work.progress))
    with run.progress.task(work.title, max(work.epochs, 1), told) as task:
        while process.poll() is None:
            if run.stop():
                raise Stopped(f"{work.title}: stopped, its last checkpoint is kept")
            watch.look()
            for one in epochs_of(work.progress)[told:]:
                told += 1
                known = [value for value in one["dice"] if value == value]
                task.advance(loss=one["loss"], dice=sum(known) / max(len(known), 1))
            time.sleep(POLL_SECONDS)
        if not work.epochs and process.returncode == 0:
            task.advance()


def epochs_of(progress: Path) -> list[dict[str, Any]]:
    """The epochs that were done, the last record of each: an epoch after a killed one is done again."""
    found: dict[int, dict[str, Any]] = {}
    if progress.exists():
        for line in progress.read_text().splitlines():
            with suppress(ValueError):  # cut off by a kill
                one = json.loads(line)
                found[one["epoch"]] = one
    return [found[epoch] for epoch in sorted(found)]


def environment(work: Work, run: Run, temporary: Path) -> Mapping[str, str]:
    """The process's environment: its own folders; nnUNet_* of the user are replaced there, and only there."""
    own = {name: str(work.folder / folder) for name, folder in FOLDERS.items()}
    for folder in own.values():
        Path(folder).mkdir(parents=True, exist_ok=True)
    threads = str(work.settings["threads"])
    own |= {
        "nnUNet_extTrainer": str(Path(__file__).parent / "trainers"),
        "nnUNet_def_n_proc": str(work.settings["processes"]),
        "nnUNet_n_proc_DA": "1",
        "nnUNet_wandb_enabled": "0",
        "OMP_NUM_THREADS": threads,
        "TMPDIR": str(temporary),
        SETTINGS: json.dumps({**work.trainer, "progress": str(work.progress)}),
    }
    if run.device.startswith("cuda:"):  # nnU-Net takes the first visible card
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        index = int(run.device.partition(":")[2])
        own["CUDA_VISIBLE_DEVICES"] = visible.split(",")[index] if visible else str(index)
    return safe_environment(**own)


def why(code: int, said: str) -> str:
    """Why the process ended, and what to do. said: what it wrote."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = f" ({lines[-1][:LINE_LENGTH]})" if lines else ""
    if DISK_FULL.search(said):
        return "the disk is full: free space in the store and run the same command again, which goes on"
    if WORKER_DEATHS.search(said):
        return (
            "its worker processes died, which nnU-Net does not explain: the system ends them when memory or /dev/shm is "
            "short; set nnUNet_n_proc_DA to fewer workers, give a container more shared memory (--ipc=host), or use fewer "
            "--threads, and run the same command again, which goes on"
        )
    if code == -signal.SIGKILL:
        return (
            "its process was killed, probably because memory was short: set a lower downstream.planner_gb, use fewer "
            f"--threads, or free memory, and run the same command again, which goes on{last}"
        )
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}{last}"
    return f"its process ended with exit code {code}{last}"
