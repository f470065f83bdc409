"""A lease on a training: two runs must not train the same object at once.

The leases of a folder are files `lease.<number>.json` with host, process, job and a heartbeat (the file's time). The holder
is the process that created the highest number and has not released it. A number is created once and never again, so that of
several processes that see a dead holder only one takes over (Lamport's fencing token). A holder is dead when its heartbeat is
stale, also of a dead node, when its process, on this host, is gone, or when it is the same job of Slurm before that was
requeued from another node. A holder that slept meanwhile finds a higher number and
writes nothing more.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from medlord_bench.contracts import Run
from medlord_bench.errors import StepError, UserError
from medlord_bench.util.documents import parse_json
from medlord_bench.util.files import guarded, write_json

HEARTBEAT_SECONDS = 15.0
STALE_SECONDS = 180.0
CHECK_SECONDS = 1.0  # between two looks at the folder
TRIES = 100  # of a take-over while others take over too


class HeldError(UserError):
    """Another process works in the folder."""


class Lease:
    """A held lease: one number in its folder. token: tells it from a lease of the same number in a folder made anew."""

    def __init__(self, folder: Path, number: int, token: str) -> None:
        self.folder, self.number, self.token = folder, number, token
        self.path = _path(folder, number)
        self._checked = time.monotonic()

    def holds(self) -> bool:
        """Whether no other process has taken over."""
        return _numbers(self.folder)[-1:] == [self.number] and _read(self.path).get("token") == self.token

    def check(self) -> None:
        """Raise `StepError` if another process has taken over: whatever this one would write now is not wanted."""
        if not self.holds():
            raise StepError(
                f"{self.folder}: another run took over this training while this process was stopped; this process saves "
                "nothing more: wait for the other run, then give the same command again"
            )
        self._checked = time.monotonic()

    def guarded(self, run: Run) -> Run:
        """`run`, whose `stop` raises `StepError` if another process has taken over. The folder is looked at at most once in
        `CHECK_SECONDS`, and at once after the process was stopped for longer."""

        def stop() -> bool:
            if time.monotonic() - self._checked >= CHECK_SECONDS:
                self.check()
            return run.stop()

        return replace(run, stop=stop)


@contextmanager
def held(folder: Path) -> Iterator[Lease]:
    """Hold the lease of `folder`; whatever is published below it is preceded by `check`. Raises `UserError` naming the holder if
    another process works there."""
    folder.mkdir(parents=True, exist_ok=True)
    lease = _take_patiently(folder) if os.environ.get("SLURM_JOB_ID") else _take(folder)
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(lease.path, ended), daemon=True, name="lease")
    beat.start()
    with guarded(folder, lease.check):
        try:
            yield lease
        finally:
            ended.set()
            beat.join()
            if lease.holds():
                write_json(lease.path, {"released": True})


def _take_patiently(folder: Path) -> Lease:
    """As `_take`; in a job of a cluster, which may begin seconds after the node of its predecessor died, first wait whether
    the holder still gives a heartbeat."""
    before = _beats(folder)
    end = time.monotonic() + STALE_SECONDS + HEARTBEAT_SECONDS
    while True:
        try:
            return _take(folder)
        except HeldError:
            if _beats(folder) != before or time.monotonic() > end:
                raise
        time.sleep(CHECK_SECONDS)


def _beats(folder: Path) -> tuple[tuple[str, float], ...]:
    """Every lease of a folder and its last heartbeat."""
    found = []
    for path in sorted(folder.glob("lease.*.json")):
        with suppress(FileNotFoundError):
            found.append((path.name, path.stat().st_mtime))
    return tuple(found)


def _take(folder: Path) -> Lease:
    token = secrets.token_hex(8)
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "job": os.environ.get("SLURM_JOB_ID", ""), "token": token}
    for _ in range(TRIES):
        numbers = _numbers(folder)
        holder = _path(folder, numbers[-1]) if numbers else None
        if holder is not None and not _is_free(holder):
            break
        number = numbers[-1] + 1 if numbers else 1
        try:
            with open(_path(folder, number), "x") as file:  # exclusive, also on NFS
                json.dump(mine, file)
        except FileExistsError:
            continue
        if _numbers(folder)[-1] != number:  # what was seen above was old: others have come and gone
            _path(folder, number).unlink(missing_ok=True)
            continue
        for old in numbers:
            _path(folder, old).unlink(missing_ok=True)
        return Lease(folder, number, token)
    found = {} if holder is None else _read(holder)
    raise HeldError(
        f"{folder}: another run trains this (host {found.get('host')}, process {found.get('pid')}, "
        f"job {found.get('job') or 'none'}); wait for it, or give another --seed or --store"
    )


def _path(folder: Path, number: int) -> Path:
    return folder / f"lease.{number}.json"


def _numbers(folder: Path) -> list[int]:
    """Of the leases in a folder, ascending."""
    parts = (path.name.split(".") for path in folder.glob("lease.*.json"))
    return sorted(int(part[1]) for part in parts if len(part) == 3 and part[1].isdigit())


def _read(path: Path) -> dict[str, object]:
    try:
        found = parse_json(path.read_text())
    except (OSError, ValueError):  # just created or removed, or truncated by a kill
        return {}
    return found if isinstance(found, dict) else {}


def _is_free(path: Path) -> bool:
    """Whether a lease was released, or its holder is dead."""
    try:
        age = _now(path.parent) - path.stat().st_mtime
    except FileNotFoundError:
        return True
    holder = _read(path)
    pid = holder.get("pid")
    ended = holder.get("host") == socket.gethostname() and isinstance(pid, int) and not _is_alive(pid)
    released = holder.get("released") is True
    job = os.environ.get("SLURM_JOB_ID")
    moved = bool(job) and holder.get("job") == job and holder.get("host") != socket.gethostname()
    return (
        released or ended or moved or age > STALE_SECONDS
    )  # the process id may have been reused: the heartbeat decides too


def _now(folder: Path) -> float:
    """The time by the clock that dates the files of a folder: a server's may differ from this machine's."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".tmp-clock-") as file:
        return os.fstat(file.fileno()).st_mtime


def _is_alive(pid: int) -> bool:
    """Whether a process of this host still runs; a zombie does not."""
    if not Path("/proc/self/stat").exists():
        return True  # unknown on this system
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_SECONDS):
        with suppress(FileNotFoundError):  # taken over: `check` says so
            os.utime(path)
