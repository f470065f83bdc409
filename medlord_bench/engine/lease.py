"""A lease on a training: two runs must not train the same object at once.

A file with host, process, job and a heartbeat. It is taken over when its heartbeat is stale (also from a dead node)
or when its process, on this host, is gone.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medlord_bench.errors import UserError

HEARTBEAT_SECONDS = 15.0
STALE_SECONDS = 180.0


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lease of `folder`. Raises `UserError` naming the holder if another process works there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lease.json"
    _take(path)
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, ended), daemon=True, name="lease")
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()
        path.unlink(missing_ok=True)


def _take(path: Path) -> None:
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "job": os.environ.get("SLURM_JOB_ID", "")}
    for _ in range(2):
        try:
            with open(path, "x") as file:
                json.dump(mine, file)
            return
        except FileExistsError:
            if not _is_dead(path):
                break
            path.unlink(missing_ok=True)
    holder = _read(path)
    raise UserError(
        f"{path.parent}: another run trains this (host {holder.get('host')}, process {holder.get('pid')}, "
        f"job {holder.get('job') or 'none'}); wait for it, or give another --seed or --store"
    )


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):  # just released, or truncated by a kill
        return {}
    return found if isinstance(found, dict) else {}


def _is_dead(path: Path) -> bool:
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return True
    holder = _read(path)
    pid = holder.get("pid")
    ended = holder.get("host") == socket.gethostname() and isinstance(pid, int) and not _is_alive(pid)
    return ended or age > STALE_SECONDS  # the process id may have been reused: the heartbeat decides too


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
        try:
            os.utime(path)
        except FileNotFoundError:  # taken over after a long pause of this machine
            return
