"""A segmenter in a separate process, so that its environment, threads, crashes and hangs are isolated.

`segment` is the bench's side and `serve` the other. The process serves many cases, since importing nnU-Net takes
half a minute: it reads one line of JSON for each request from its standard input and writes each answer as a small
file. When its standard input ends, the bench has ended, and the process ends too. It opens no network connection.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from medlord_bench.contracts import Failure, LabelMap, Run, Volume
from medlord_bench.errors import ExitCode, StepError, Stopped, UserError
from medlord_bench.memory.children import Watch
from medlord_bench.util.files import write_json
from medlord_bench.util.interpreter import safe_environment

START_SECONDS = 900.0  # imports and weights from a cold network disk
POLL_SECONDS = 0.1
REASON_LENGTH = 300
NETWORK = {f"socket.{call}" for call in ("connect", "sendto", "sendmsg", "getaddrinfo", "gethostbyname")}

Segment = Callable[[Path, Path], None]  # (volume file, label file to write)


@dataclass(frozen=True)
class Launch:
    """How to start a segmenter's process. settings: JSON argument of its `prepare`; timeout_s: for one case."""

    name: str
    command: Sequence[str]
    settings: Mapping[str, Any]
    timeout_s: float


def segment(
    volumes: Iterable[tuple[str, Volume]], launch: Launch, names: Mapping[int, str], run: Run
) -> Iterator[LabelMap | Failure]:
    """One label map for each (case id, volume), on the volume's own grid, in order.

    A case whose process fails, dies or is silent for `launch.timeout_s` is a `Failure` with the reason, and the next
    case gets a new process. Raises `StepError` if the process cannot start, `Stopped` when `run.stop()` is true, and
    `MemoryBudgetError` if it exceeds the memory limit: with a larger limit the case would succeed, so it must
    not be published as failed.
    """
    from medlord_bench.volumes.checks import check_same_grid
    from medlord_bench.volumes.io import read_labels, write_volume

    child: _Child | None = None
    try:
        for case_id, volume in volumes:
            if child is None:
                child = _Child(launch, run)
            source, target = child.folder / "volume.nii", child.folder / "labels.nii"
            write_volume(source, volume)
            problem = child.ask({"volume": str(source), "labels": str(target)}, launch.timeout_s)
            if problem is None:
                labels = read_labels(target, names)
                check_same_grid(volume, labels, f"case {case_id}", f"the label map of {launch.name}")
                target.unlink()
                yield LabelMap(labels.labels, volume.affine, names)
            else:
                child.close()  # remains of an error (memory, workers) must not affect the next case
                child = None
                yield Failure(f"{launch.name}: {problem}")
    finally:
        if child is not None:
            child.close()


class _Child:
    """The running process, its folder below the run's scratch, and its log beside that folder."""

    def __init__(self, launch: Launch, run: Run) -> None:
        self.launch, self.run = launch, run
        self.log = run.scratch / f"{launch.name}-{os.getpid()}.log"
        self.folder = Path(tempfile.mkdtemp(prefix=f"{launch.name}-", dir=run.scratch))
        # Its own folder for temporary files, so that a kill leaves none; a short path, since it contains sockets.
        self.temporary = Path(tempfile.mkdtemp(prefix="mb-"))
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                launch.command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment(),
                start_new_session=True,  # own process group: killed with every worker it starts
            )
        self.watch = Watch(f"segmenter {launch.name}", self.process.pid, run)
        self.asked = 0
        self._start()

    def _environment(self) -> Mapping[str, str]:
        import torch

        threads = str(torch.get_num_threads())
        return safe_environment(
            TMPDIR=str(self.temporary),
            OMP_NUM_THREADS=threads,
            nnUNet_def_n_proc=threads,
            **{name: str(self.folder) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")},
        )

    def _start(self) -> None:
        settings = {**self.launch.settings, "device": self.run.device}
        folders = [str(self.folder), str(self.temporary)]
        try:
            problem = self.ask({"settings": settings, "folders": folders}, START_SECONDS)
        except BaseException:
            self.close()
            raise
        if problem is not None:
            self.close()
            raise StepError(f"segmenter {self.launch.name}: its process did not start: {problem}; see {self.log}")

    def ask(self, request: Mapping[str, Any], seconds: float) -> str | None:
        """Send a request and wait; None on success, else the reason of the failure. Raises `UserError` if it answers
        with one, `Stopped`, and `MemoryBudgetError`."""
        problem = self._ask(request, seconds)
        if problem is not None:
            self.watch.judge(problem)
        return problem

    def _ask(self, request: Mapping[str, Any], seconds: float) -> str | None:
        self.asked += 1
        answer, deadline = self.folder / f"{self.asked}.json", time.monotonic() + seconds
        with suppress(BrokenPipeError):  # the process has died: handled below
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps({**request, "answer": str(answer)}).encode() + b"\n")
            self.process.stdin.flush()
        while not answer.exists():
            if self.process.poll() is not None:
                return None if answer.exists() else self._death()
            if self.run.stop():
                self.close()
                raise Stopped(f"segmenter {self.launch.name}: stopped, the finished cases are saved")
            self.watch.look()
            if time.monotonic() > deadline:
                return f"no answer within {seconds:g} s: killed"
            time.sleep(POLL_SECONDS)
        told = json.loads(answer.read_text())
        answer.unlink()
        if told["exit"] is not None:
            raise UserError(told["error"], ExitCode(told["exit"]))
        error: str | None = told["error"]
        return error

    def _death(self) -> str:
        code = self.process.returncode
        lines = self.log.read_text(errors="replace").strip().splitlines()
        last = f" ({lines[-1].strip()[:REASON_LENGTH]})" if lines else ""
        if code == -signal.SIGKILL:
            return f"its process was killed, probably because memory was short{last}"
        if code < 0:
            return f"its process was ended by {signal.Signals(-code).name}{last}"
        return f"its process ended with exit code {code}{last}"

    def close(self) -> None:
        """Kill the process with every worker it started, and remove its folders. Safe to call twice."""
        with suppress(ProcessLookupError, PermissionError):  # PermissionError: raised by macOS for a group of zombies
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
        for folder in (self.folder, self.temporary):
            shutil.rmtree(folder, ignore_errors=True)


# ------------------------------------------------------------------------------------------------- in the process
def serve(prepare: Callable[[Mapping[str, Any], Path], Segment]) -> None:
    """The process: call `prepare(settings, folder)` once, then serve requests until standard input ends.

    folder: its own, removed afterwards. An error in `prepare` or in a case is returned as the answer.
    """
    sys.addaudithook(_refuse_network)
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    first, prepared = requests.get(), list[Segment]()
    _answer(first, lambda: prepared.append(prepare(first["settings"], Path(first["folders"][0]))))
    while True:
        request = requests.get()
        _answer(request, partial(prepared[0], Path(request["volume"]), Path(request["labels"])))


def _listen(requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Read requests; at the end of input, end this process and its workers, even during a case."""
    # Unbuffered and separate from sys.stdin: a worker forked while this thread reads would inherit a held lock.
    with os.fdopen(os.dup(0), "rb", buffering=0) as lines, open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        folders: list[str] = []
        for line in lines:
            request = json.loads(line)
            folders = request.get("folders", folders)
            requests.put(request)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def _answer(request: Mapping[str, Any], work: Callable[[], None]) -> None:
    answer: dict[str, Any] = {"error": None, "exit": None}
    try:
        work()
    except UserError as error:
        answer = {"error": str(error), "exit": int(error.code)}
    except (Exception, SystemExit) as error:  # SystemExit: how TotalSegmentator reports some of its errors
        import traceback

        traceback.print_exc()
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        answer["error"] = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:REASON_LENGTH]
    write_json(Path(request["answer"]), answer)


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook. Sockets between processes of this machine (AF_UNIX) are used by nnU-Net and allowed."""
    if event not in NETWORK:
        return
    import socket

    if isinstance(arguments[0], socket.socket) and arguments[0].family == socket.AF_UNIX:
        return
    print(f"network call refused: {event}", file=sys.stderr, flush=True)
    raise PermissionError("a segmenter's process may not make network calls")
