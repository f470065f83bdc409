"""Run a user's program: its own process group, a log, limits of time and memory, and termination when the bench
stops."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from medlord_bench.contracts import Run
from medlord_bench.errors import Stopped, UserError
from medlord_bench.memory.children import Watch

LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1  # of Linux's prctl
POLL_SECONDS = 0.05
GRACE_SECONDS = 5.0  # between asking a program to end and killing it
KILLED_SECONDS = 30.0  # for a killed program to be gone
TAIL = 4096  # bytes of its errors in which the last line is looked for
PASSED = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")


def environment(names: Sequence[str]) -> dict[str, str]:
    """The program's environment: a few variables that any program needs, and the named ones.

    Others are left out: PYTHONPATH or thread counts of the bench must not affect the program.
    """
    return {name: os.environ[name] for name in (*PASSED, *names) if name in os.environ}


def run(
    words: Sequence[str],
    folder: Path,
    variables: Mapping[str, str],
    log: Path,
    timeout: float,
    bench: Run,
) -> str | None:
    """Run a program to its end. Returns the reason of a failure, else None; its output is added to `log`.

    Raises `UserError` if the program cannot be started. Ends the program and raises `Stopped` if
    `bench.stop()` becomes true, and `MemoryBudgetError` if it exceeds the memory limit. Remaining processes of its
    group are ended too.
    """
    deadline = time.monotonic() + timeout
    # Files and no pipes: a background process may keep a pipe open for ever. They stay open, since the program may put a pipe in
    # their place.
    with open(log, "ab") as out, TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                words, cwd=folder, env=dict(variables), stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                start_new_session=True, preexec_fn=_end_with_parent,
            )  # fmt: skip
        except OSError as error:
            raise UserError(
                f"{words[0]}: cannot be started ({error.strerror}); expected a program: fix command"
            ) from None
        watch = Watch(f"the program {Path(words[0]).name}", process.pid, bench)
        try:
            while process.poll() is None and time.monotonic() < deadline and not bench.stop():
                watch.look()
                time.sleep(POLL_SECONDS)
        finally:
            ended = process.poll()
            _end(process)
        last = _last_line(err)
        err.seek(0)
        shutil.copyfileobj(err, out)
    if ended is None:
        if bench.stop():
            raise Stopped("stopped while a program ran; its sample is drawn again")
        return f"ran past its time limit of {timeout:g} s and was ended"
    if ended:
        how = f"ended by {_signal(-ended)}" if ended < 0 else f"exit code {ended}"
        problem = f"{how}{': ' + last if last else ''}"
        watch.judge(problem)
        return problem
    return None


def _end_with_parent() -> None:
    """In the new process: Linux ends it when the bench is killed, which then cannot do so itself."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the whole group to end, then kill it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):  # not even SIGKILL ends a process that waits for a dead disk
        process.wait(KILLED_SECONDS)


def _last_line(file: IO[bytes]) -> str:
    """The last line that is not empty, of the end of a file."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
    lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def _signal(number: int) -> str:
    if number == signal.SIGXFSZ:
        return "SIGXFSZ: it wrote a file larger than the limit (ulimit -f)"
    return f"signal {number}"
