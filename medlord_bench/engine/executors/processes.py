"""The run's side of persistent worker processes: started once, given one task after the other (see `cli.serve`)."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Protocol, TextIO, cast

from medlord_bench.util.interpreter import module_command
from medlord_bench.util.stopping import SIGNALS

SERVE = "medlord_bench.cli.serve"  # the worker's side
READ_BYTES = 2**16
PAUSE_HARD = 2  # omp_pause_hard of OpenMP 5: end the threads


class Process(Protocol):
    """The part of `subprocess.Popen` that a worker needs."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self) -> int: ...
    def send_signal(self, sig: int) -> None: ...


class WorkerProcess:
    """A process that serves one task at a time. tasks, answers: unbuffered pipes to and from it."""

    def __init__(self, process: Process, tasks: BinaryIO, answers: BinaryIO) -> None:
        self.process, self.input, self.answers = process, tasks, answers
        self.tasks: set[int] = set()  # shards being processed

    def start(self, task: dict[str, Any]) -> None:
        self.tasks.add(task["shard"])
        with suppress(BrokenPipeError):  # `ended` detects its end
            self.input.write(json.dumps(task).encode() + b"\n")

    def stop(self) -> None:
        """Ask for a clean end of the running tasks."""
        if self.tasks:
            self.process.send_signal(signal.SIGTERM)

    def fileno(self) -> int:
        """The object that becomes readable when `ended` has a result."""
        return self.answers.fileno()

    def ended(self) -> dict[int, int]:
        """Shard -> exit code of tasks that ended; waits for the first. If the process has ended, all of its tasks
        have."""
        lines = os.read(self.fileno(), READ_BYTES).splitlines()
        if lines:
            codes = {answer["shard"]: int(answer["code"]) for answer in map(json.loads, lines)}
        else:
            codes = dict.fromkeys(self.tasks, self.process.wait())
        self.tasks -= codes.keys()
        return codes

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        """End the process. A running task saves and ends first."""
        self.stop()
        self.input.close()
        self.process.wait()
        self.answers.close()

    def held(self) -> list[int]:
        """The file descriptors of its pipes that this process holds."""
        return [pipe.fileno() for pipe in (self.input, self.answers) if not pipe.closed]


def start(command: list[str], log: Path, environment: Mapping[str, str]) -> WorkerProcess:
    """A worker that a command starts. log: file for output that belongs to no task."""
    with log.open("ab") as errors:
        # Own session: Ctrl-C in the terminal reaches only the run, which forwards it once.
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            bufsize=0,
        )
    return WorkerProcess(process, cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout))


def serve_command() -> list[str]:
    """The command of a worker that imports for itself."""
    return module_command(SERVE)


# -------------------------------------------------------------------------------------------------------------- forked
_foreign: ContextVar[bool] = ContextVar("foreign", default=False)


@contextmanager
def foreign_process() -> Iterator[None]:
    """This process is not the bench's own: it may have computed gradients, or have threads, and is not forked."""
    token = _foreign.set(True)
    try:
        yield
    finally:
        _foreign.reset(token)


def can_fork(device: str) -> bool:
    """Whether work on `device` can be done in forked children: under Linux, not with CUDA, in a process of our own."""
    return sys.platform == "linux" and device == "cpu" and not _foreign.get()


class Forked:
    """A child process of this one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None

    def poll(self) -> int | None:
        return self._wait(os.WNOHANG)

    def wait(self) -> int:
        code = self._wait(0)
        assert code is not None
        return code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def _wait(self, options: int) -> int | None:
        if self.code is None:
            ended, status = os.waitpid(self.pid, options)
            self.code = os.waitstatus_to_exitcode(status) if ended else None
        return self.code


def fork(log: Path, others: Iterable[WorkerProcess]) -> WorkerProcess:
    """A worker that is a copy of this process, with all its imports. Not where CUDA is in use.

    log: as of `start`. others: the workers whose pipes this process holds.
    """
    _prepare()
    (tasks, to_worker), (from_worker, answers) = os.pipe(), os.pipe()
    with _signals_blocked() as mask:
        pid = os.fork()
        if not pid:
            held = [to_worker, from_worker, *(end for worker in others for end in worker.held())]
            _serve(tasks, answers, log, held, mask)
    os.close(tasks)
    os.close(answers)
    return WorkerProcess(Forked(pid), os.fdopen(to_worker, "wb", 0), os.fdopen(from_worker, "rb", 0))


def _serve(tasks: int, answers: int, log: Path, held: list[int], mask: set[int | signal.Signals]) -> NoReturn:
    """Be a worker, in a new child. held: file descriptors of its parent's pipes: a worker waits for the last process
    that holds them. mask: of the signals that its parent blocks."""
    code = 1
    try:
        os.setsid()
        for end in held:
            os.close(end)
        gc.freeze()  # else a collection writes to, and so copies, the pages of all imported modules
        _redirect(log)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        import_module(SERVE).stay(tasks, answers)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


@contextmanager
def _signals_blocked() -> Iterator[set[int | signal.Signals]]:
    """A signal that reaches a child before it has let go of its parent's handlers must not be lost."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def apart(work: Callable[..., None], *arguments: Any) -> None:
    """Call `work` in a forked child and raise what it raises: a process that has computed gradients cannot be forked."""
    _prepare()
    with ProcessPoolExecutor(1, get_context("fork")) as child:
        child.submit(work, *arguments).result()


def _prepare() -> None:
    """Import for all children, and end OpenMP's threads, since a fork does not copy them and a child would wait for
    them; they start again when needed."""
    import_module(SERVE).load_libraries()
    import threadpoolctl

    for library in threadpoolctl.threadpool_info():
        if library["user_api"] == "openmp":
            with suppress(AttributeError):  # before OpenMP 5
                ctypes.CDLL(library["filepath"]).omp_pause_resource_all(PAUSE_HARD)


def _redirect(log: Path) -> None:
    """Read from nothing and write to the log; what the parent has buffered is not written again."""
    for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)):
        opened = os.open(path, flags, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    os.dup2(1, 2)
    sys.stdout, sys.stderr = _stream(1), _stream(2)


def _stream(number: int) -> TextIO:
    return os.fdopen(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
