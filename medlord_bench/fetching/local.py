"""Fetched files on disk: compared with their record, locked by `NAME.lock.json`, and the space they need."""

from __future__ import annotations

import hashlib
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, ValidationError

from medlord_bench.contracts import FrozenConfig
from medlord_bench.errors import UserError
from medlord_bench.fetching.http import FetchError
from medlord_bench.util.files import write_json

PIECE = 2**20
SPARE_BYTES = 2**28  # free space that no fetch uses


class Wanted(FrozenConfig):
    """One file to fetch. bytes, md5, sha256: as its record says; None: not known."""

    url: str
    name: str = Field(description="path below the target folder")
    bytes: int | None = Field(None, ge=0)
    md5: str | None = Field(None, pattern=r"^[0-9a-f]{32}$")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")


class Lock(FrozenConfig):
    """`NAME.lock.json`: what was fetched, from where and when. modified: of the file on disk, in ns."""

    url: str
    sha256: str
    md5: str
    bytes: int
    date: str
    modified: int = 0


def lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock.json")


def present(path: Path, wanted: Wanted) -> bool:
    """Whether the file is there and right. Reads it only if it is not as its lock recorded it.

    Raises `UserError` if its content is not what the record or the lock says.
    """
    if not path.is_file():
        return False
    lock, facts = read_lock(lock_path(path)), path.stat()
    known = (wanted.md5 is None or (lock is not None and lock.md5 == wanted.md5)) and (
        wanted.sha256 is None or (lock is not None and lock.sha256 == wanted.sha256)
    )
    if lock and known and (lock.bytes, lock.modified) == (facts.st_size, facts.st_mtime_ns):
        return True
    md5, sha256 = hashes_of(path)
    compare(path, wanted, facts.st_size, md5, sha256)
    if lock and lock.sha256 != sha256:
        raise UserError(
            f"{path}: sha256 is {sha256}, but {lock_path(path)} records {lock.sha256}; the file was changed: delete it to "
            "fetch it again, or delete the lock to accept it"
        )
    with suppress(OSError):  # a shared read-only folder: it is hashed again next time
        write_lock(path, wanted.url, md5, sha256)
    return True


def compare(path: Path, wanted: Wanted, size: int, md5: str, sha256: str) -> None:
    for what, expected, found in (
        ("size", wanted.bytes, size),
        ("md5", wanted.md5, md5),
        ("sha256", wanted.sha256, sha256),
    ):
        if expected is not None and expected != found:
            raise FetchError(
                f"{path}: {what} is {found}, but the record of {wanted.url} says {expected}; the file is damaged or another "
                "version: delete it if it is there, and fetch it again"
            )


def hashes_of(path: Path) -> tuple[str, str]:
    """md5 and sha256 of a file, read once."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            md5.update(piece)
            sha256.update(piece)
    return md5.hexdigest(), sha256.hexdigest()


def read_lock(path: Path) -> Lock | None:
    """The lock, or None. Raises `UserError` for one that is damaged."""
    if not path.exists():
        return None
    try:
        return Lock.model_validate_json(path.read_text())
    except (ValidationError, UnicodeDecodeError):
        raise UserError(f"{path}: not a lock; restore it, or delete it to write a new one") from None


def write_lock(path: Path, url: str, md5: str, sha256: str) -> Lock:
    facts = path.stat()
    date = datetime.now(UTC).isoformat(timespec="seconds")
    lock = Lock(url=url, sha256=sha256, md5=md5, bytes=facts.st_size, date=date, modified=facts.st_mtime_ns)
    write_json(lock_path(path), lock.model_dump())
    return lock


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raises `UserError` if the disk of `folder` has not `needed` bytes and a reserve."""
    free = free_bytes(folder)
    if needed + SPARE_BYTES > free:
        raise UserError(
            f"{folder}: {what} need {gib(needed)}, {gib(free)} are free; free disk space, or choose another folder with --to"
        )


def free_bytes(folder: Path) -> int:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**27 else f"{count / 2**20:.2f} MiB"
