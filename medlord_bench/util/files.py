"""Write files and folders atomically: a reader sees either the old content or the new one, never a partial file.

Every file of the bench is written by `publish`: a temporary in the same folder, fsync, rename.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
    import resource
except ImportError:  # not on this system: then several may write the same
    fcntl = resource = None  # type: ignore[assignment]

TEMPORARY = ".tmp-"  # what the name of a temporary begins with
Write = Callable[[Path], object]
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # EFBIG: beyond the file size limit (ulimit -f)
FULL_BYTES = 2**18  # with less than this left, a failed write is attributed to a full disk


_guards: list[tuple[Path, Callable[[], None]]] = []


@contextmanager
def guarded(folder: Path, check: Callable[[], None]) -> Iterator[None]:
    """Meanwhile `check` is called just before anything below `folder` is renamed into place. It raises if this process may not
    write there any more: it may have slept since it began to write. Of several for one folder the last one counts."""
    entry = (folder, check)
    _guards.append(entry)
    try:
        yield
    finally:
        _guards.remove(entry)


def _check_guard(path: Path) -> None:
    check = next((check for folder, check in reversed(_guards) if path.is_relative_to(folder)), None)
    if check is not None:
        check()


def publish(path: Path, write: Write) -> None:
    """Let `write` make a temporary file beside `path`, sync it to disk, and rename it to `path`.

    The temporary keeps the suffix, since writers choose the format by it. Raises `OSError` naming `path` if the
    disk is full or the file size limit is reached: NumPy, torch and safetensors each raise a different error for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        with _errors_name(path, temporary):
            write(temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            _check_guard(path)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def publish_once(path: Path, write: Write) -> None:
    """Publish `path` if it does not exist: of several processes of a machine one writes, and the others wait for it."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".lock-{path.name}"), "w") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            publish(path, write)


def publish_folder(path: Path, fill: Write) -> None:
    """Let `fill` make a folder beside `path` and replace `path` by it atomically. Raises `OSError` as `publish`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with _errors_name(path, temporary):
            fill(temporary)
            _check_guard(path)
            shutil.rmtree(path, ignore_errors=True)
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Publish a text file in UTF-8."""
    publish(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Publish JSON, keys sorted."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def _temporary(path: Path) -> Path:
    """Hidden, and different for each process, so that two writers of one path do not collide."""
    return path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")


@contextmanager
def _errors_name(path: Path, temporary: Path) -> Iterator[None]:
    """Raise errors of the block as `_named` returns them."""
    try:
        yield
    except Exception as error:
        named = _named(error, path, temporary)
        if named is error:
            raise  # `raise error from error` would make it its own cause, and a walk along the causes endless
        raise named from error


def _named(error: Exception, path: Path, temporary: Path) -> Exception:
    """The `OSError` of a full disk or a file at its size limit that names `path`, if that is the cause; else the error itself."""
    number = error.errno if isinstance(error, OSError) else None
    if number not in DISK_FULL:
        full = shutil.disk_usage(path.parent).free < FULL_BYTES
        number = errno.ENOSPC if full else errno.EFBIG if _is_at_limit(error, temporary) else None
    return error if number is None else OSError(number, os.strerror(number), str(path))


def _is_at_limit(error: Exception, temporary: Path) -> bool:
    """Whether an error says so, or a file, or one of a folder, is as large as this process may write."""
    if os.strerror(errno.EFBIG) in str(error):  # of a library in Rust
        return True
    try:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    except AttributeError:  # not on this system
        return False
    files = temporary.rglob("*") if temporary.is_dir() else [temporary]
    return limit != resource.RLIM_INFINITY and any(one.is_file() and one.stat().st_size >= limit for one in files)
