"""One file from a server, resumable and verified: it has its own name only when it is complete and right.

While it is fetched it is `NAME.part`, with `NAME.part.json` beside it, which says what the server had. A fetch that was
killed continues there, by a byte range and only if the file on the server is unchanged (RFC 9110: Range and If-Range).
`NAME.lock.json` records what was published: later fetches compare the file with it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pydantic import ValidationError

from medlord_bench.contracts import FrozenConfig
from medlord_bench.errors import UserError
from medlord_bench.fetching.http import Client, FetchError, Retry
from medlord_bench.fetching.local import PIECE, Lock, Wanted, compare, gib, hashes_of, lock_path, read_lock, write_lock
from medlord_bench.util.files import DISK_FULL, write_json

try:
    import fcntl
except ImportError:  # not on this system: then two fetches of one file may disturb each other
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import httpx

FORWARD = 2**16  # bytes that an attempt must bring to count as one that got on
Advance = Callable[[int], None]  # of a number of bytes


class Part(FrozenConfig):
    """`NAME.part.json`: which content the part belongs to. tag: ETag or Last-Modified, to be sent as If-Range."""

    url: str
    tag: str = ""
    bytes: int | None = None


def part_path(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def remaining(path: Path, wanted: Wanted) -> int:
    """Bytes still to be fetched; 0 if that is not known."""
    if path.is_file() or wanted.bytes is None:
        return 0
    part = part_path(path)
    return max(0, wanted.bytes - (part.stat().st_size if part.is_file() else 0))


def download(wanted: Wanted, path: Path, client: Client, advance: Advance = lambda _: None) -> Lock:
    """Fetch a file to `path`, continuing an earlier attempt; verified and locked.

    advance: is called with the number of bytes, also of those that an earlier attempt fetched.
    Raises `FetchError` if the server or its content is at fault, and `Stopped`, with the part kept in each case where
    it can be continued and removed where its content is wrong.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(part_path(path)) as file:
        fetched = _Fetched(wanted, path, file, client, advance)
        again = fetched.fill()
        try:
            compare(path, wanted, fetched.size, *fetched.hashes())
        except UserError:
            if not again:  # it was fetched in one piece: it will be the same next time
                fetched.discard()
                raise
            fetched.restart()
            fetched.fill()
            try:
                compare(path, wanted, fetched.size, *fetched.hashes())
            except UserError:
                fetched.discard()
                raise
        _check_lock(path, fetched)
        file.flush()
        os.fsync(file.fileno())
        os.replace(part_path(path), path)
    _facts(path).unlink(missing_ok=True)
    return write_lock(path, wanted.url, *fetched.hashes())


def fetch_unlocked(wanted: Wanted, path: Path, client: Client, advance: Advance = lambda _: None) -> str:
    """`download` of one of many small files, which share a record elsewhere: no lock is kept. Returns its sha256.

    A file that is there is compared with the record of its server and kept.
    """
    if path.is_file():
        md5, sha256 = hashes_of(path)
        compare(path, wanted, path.stat().st_size, md5, sha256)
        return sha256
    lock = download(wanted, path, client, advance)
    lock_path(path).unlink()
    return lock.sha256


class _Fetched:
    """A part file while it grows, with the hashes of what it has."""

    def __init__(self, wanted: Wanted, path: Path, file: IO[bytes], client: Client, advance: Advance) -> None:
        self.wanted, self.path, self.file, self.client, self.advance = wanted, path, file, client, advance
        self.size = 0
        self._newhashes_of()
        self.part = _read_part(_facts(path))
        if self.part.url != wanted.url or (wanted.bytes is not None and _size(file) > wanted.bytes):
            self.restart()
        else:
            self._take_over()

    def hashes(self) -> tuple[str, str]:
        return self.md5.hexdigest(), self.sha256.hexdigest()

    def discard(self) -> None:
        """Remove the part: its content is wrong."""
        self.advance(-self.size)
        self.size = 0
        self.file.truncate(0)  # `_alone` removes an empty part

    def restart(self) -> None:
        self.advance(-self.size)
        self.size, self.part = 0, Part(url=self.wanted.url)
        self.file.seek(0)
        self.file.truncate()
        self._newhashes_of()

    def fill(self) -> bool:
        """Request until the file is complete. Returns whether it is made of several answers."""
        answers, failures = int(self.size > 0), 0
        while self.total is None or self.size < self.total:
            before = self.size
            try:
                self._request()
                answers += 1
                if self.total is None:  # the server does not say how much it is: this was all
                    break
                if self.size == before:
                    raise Retry("the server ends its answer without a byte")
            except Retry as failure:
                answers += self.size > before
                failures = 0 if self.size - before >= FORWARD else failures + 1
                self.client.wait(self.wanted.url, failure, max(0, failures - 1))
        return answers > 1

    @property
    def total(self) -> int | None:
        return self.wanted.bytes if self.wanted.bytes is not None else self.part.bytes

    def _newhashes_of(self) -> None:
        self.md5, self.sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()

    def _take_over(self) -> None:
        """Hash what an earlier attempt has written."""
        self.file.seek(0)
        while piece := self.file.read(PIECE):
            self._count(piece)

    def _count(self, piece: bytes) -> None:
        self.md5.update(piece)
        self.sha256.update(piece)
        self.size += len(piece)
        self.advance(len(piece))

    def _request(self) -> None:
        if self.size and not (self.part.tag or self.wanted.md5 or self.wanted.sha256):
            self.restart()  # nothing would show that the file changed in between
        headers = {}
        if self.size:
            headers["Range"] = f"bytes={self.size}-"
            if self.part.tag:
                headers["If-Range"] = self.part.tag
        with self.client.open(self.wanted.url, headers) as response:
            if response.status_code == 416:  # our part is not a beginning of what the server has now
                self.restart()
                raise Retry("the server has another file than before")
            self._begin(response)
            for piece in response.iter_raw():
                self.client.count(piece)
                if self.total is not None and self.size + len(piece) > self.total:
                    self.discard()
                    raise FetchError(
                        f"{self.wanted.url}: the server sends more than the {self.total} bytes of its record; nothing is kept: "
                        "report it to the server's owner, or try again later"
                    )
                self._write(piece)

    def _begin(self, response: httpx.Response) -> None:
        """Compare the beginning of an answer with the part: continue it, or start anew."""
        tag, length = tag_of(response), response.headers.get("Content-Length", "")
        announced = int(length) if length.isdecimal() else None
        if response.status_code == 206:
            start, total = content_range(response.headers.get("Content-Range", ""))
            if start != self.size:
                self.restart()
                raise Retry("the server sends another range than was asked for")
            if self.part.tag and tag and tag != self.part.tag:
                self.restart()
                raise Retry("the file changed on the server")
        else:
            if self.size:  # the server knows no ranges, or the file changed: this is the whole of it
                self.restart()
            total = announced
        _check_is_file(response, self.wanted)
        if self.wanted.bytes is not None and total is not None and total != self.wanted.bytes:
            self.discard()
            raise FetchError(
                f"{self.wanted.url}: the server announces {total} bytes, its record {self.wanted.bytes}; nothing is kept: the "
                "file was changed or is damaged there: try again later"
            )
        self.part = Part(url=self.wanted.url, tag=tag, bytes=total)
        write_json(_facts(self.path), self.part.model_dump())

    def _write(self, piece: bytes) -> None:
        try:
            self.file.write(piece)
            self.file.flush()
        except OSError as error:
            self.file.truncate(self.size)  # the part ends where the hashes do
            if error.errno in DISK_FULL:
                raise UserError(
                    f"{self.path}: the disk is full after {gib(self.size)}; free disk space and give the same command: it "
                    "continues there"
                ) from error
            raise
        self._count(piece)


def content_range(text: str) -> tuple[int | None, int | None]:
    """First byte and total of `Content-Range: bytes 5-9/10` (RFC 9110, 14.4); None for what is not said."""
    unit, _, rest = text.partition(" ")
    span, _, total = rest.partition("/")
    start = span.partition("-")[0]
    if unit.lower() != "bytes" or not start.isdecimal():
        return None, None
    return int(start), int(total) if total.isdecimal() else None


def tag_of(response: httpx.Response) -> str:
    """What If-Range needs: a strong ETag, else Last-Modified (RFC 9110, 13.1.5)."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else str(response.headers.get("Last-Modified", ""))


def _check_is_file(response: httpx.Response, wanted: Wanted) -> None:
    """Raises `FetchError` for a page (an error, a login) in place of a file."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind == "text/html" and not wanted.name.lower().endswith((".html", ".htm")):
        raise FetchError(
            f"{wanted.url}: the server sends a page instead of the file; it may ask for a login or be in maintenance: open it "
            "in a browser"
        )


def _check_lock(path: Path, fetched: _Fetched) -> None:
    """A lock that came with the folder must be fulfilled: the file changed under the same address otherwise."""
    lock, sha256 = read_lock(lock_path(path)), fetched.hashes()[1]
    if lock is not None and lock.sha256 != sha256:
        fetched.discard()
        raise UserError(
            f"{path}: sha256 is {sha256}, but {lock_path(path)} records {lock.sha256}; the file changed on the server since: "
            "delete the lock to accept the new one"
        )


@contextmanager
def _alone(path: Path) -> Iterator[IO[bytes]]:
    """The part file, for one process at a time. Raises `UserError` if another one writes it."""
    with open(path, "ab+") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(f"{path}: another process is fetching this file; wait for it") from None
        if not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino:
            raise UserError(f"{path}: another process has just fetched this file; give the same command again")
        try:
            yield file
        finally:
            if path.exists() and not path.stat().st_size:
                path.unlink()
                _facts_of(path).unlink(missing_ok=True)


def _facts(path: Path) -> Path:
    return _facts_of(part_path(path))


def _facts_of(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def _read_part(path: Path) -> Part:
    """What the part belongs to; without a record of it, nothing that could be continued."""
    try:
        return Part.model_validate_json(path.read_text())
    except (OSError, ValidationError):
        return Part(url="")
