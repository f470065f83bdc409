"""Zip archives of data sets, on disk or on a server: what is in them is checked before anything is written.

Refused, whole: members that would lie outside the target folder, links, members that declare more than the disk or a
plausible factor of the archive, archives that are cut short. Each member is published when its checksum is right.
"""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from medlord_bench.errors import UserError
from medlord_bench.fetching.download import Advance
from medlord_bench.fetching.http import FetchError
from medlord_bench.fetching.local import check_space, gib
from medlord_bench.util.files import DISK_FULL, publish

FACTOR = 100  # unpacked to packed: CT shrinks to a half, a whole archive of masks to a thirtieth
ALLOWED_BYTES = 2**30  # that any archive may unpack to
MOST_MEMBERS = 1_000_000


@dataclass(frozen=True)
class Member:
    """A file of an archive. target: its path below the data folder. case: of which it is; empty: of all."""

    info: zipfile.ZipInfo
    target: str
    case: str


@contextmanager
def opened(file: Path | IO[bytes], name: str) -> Iterator[zipfile.ZipFile]:
    """An archive. name: for messages. Raises `FetchError` if it is not a whole one, also while it is read."""
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise FetchError(
            f"{name}: not a whole zip archive ({error}); delete it and give the same command again"
        ) from error


def members(archive: zipfile.ZipFile, name: str, pattern: str, folder: str = "") -> list[Member]:
    """The files of an archive that `pattern` matches, by their order in it.

    pattern: a regular expression of the whole name, with the groups `path` (below `folder`) and, but for files of the
    whole data set, `case`. Raises `FetchError` for an archive that is not safe, whatever the pattern wants of it.
    """
    infos = archive.infolist()
    check(infos, name, packed=sum(info.compress_size for info in infos))
    found = []
    for info in infos:
        match = None if info.is_dir() else re.fullmatch(pattern, info.filename)
        if match:
            target = str(PurePosixPath(folder) / match["path"])
            found.append(Member(info, target, match.groupdict().get("case") or ""))
    if not found:
        raise FetchError(
            f"{name}: has no file named as {pattern}; the archive is another one than this release knows: report it"
        )
    return sorted(found, key=lambda one: one.info.header_offset)


def check(infos: Iterable[zipfile.ZipInfo], name: str, packed: int) -> None:
    """Raises `FetchError` for a member outside the folder, a link, a bomb, or a name that is there twice."""
    infos = list(infos)
    if len(infos) > MOST_MEMBERS:
        raise FetchError(f"{name}: declares {len(infos)} members; refused: at most {MOST_MEMBERS}")
    seen: set[str] = set()
    for info in infos:
        parts = PurePosixPath(info.filename).parts
        unsafe = "\\" in info.filename or ":" in info.filename or info.filename.startswith("/") or ".." in parts
        if unsafe or not parts:
            raise FetchError(f"{name}: member {info.filename!r} would lie outside the folder; nothing was unpacked")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise FetchError(f"{name}: member {info.filename!r} is a link; nothing was unpacked")
        if info.filename in seen:
            raise FetchError(f"{name}: member {info.filename!r} is there twice; nothing was unpacked")
        seen.add(info.filename)
    unpacked = sum(info.file_size for info in infos)
    if unpacked > max(ALLOWED_BYTES, FACTOR * packed):
        raise FetchError(
            f"{name}: declares {gib(unpacked)} in {gib(packed)}, more than {FACTOR} times; refused as a zip bomb"
        )


def missing(wanted: Iterable[Member], folder: Path) -> list[Member]:
    """The members that are not in the folder yet, by path and size: each was published with its checksum checked."""
    return [one for one in wanted if not _there(folder / one.target, one.info.file_size)]


def _there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def unpack(
    archive: zipfile.ZipFile,
    name: str,
    wanted: Iterable[Member],
    folder: Path,
    stop: Callable[[], None],
    advance: Advance = lambda _: None,
) -> None:
    """Write members below `folder`; those that are there are left. stop: raises if a stop was requested.

    Raises `UserError` if the disk has not the space, `FetchError` for a member whose content is wrong.
    """
    todo = missing(wanted, folder)
    check_space(folder, sum(one.info.file_size for one in todo), f"{len(todo)} files of {name}")
    root = folder.resolve()
    for one in todo:
        stop()
        target = folder / one.target
        if not target.parent.resolve().is_relative_to(root):
            raise UserError(f"{target.parent}: a link that leads out of {folder}; remove it")
        try:
            publish(target, lambda temporary, one=one: _write(archive, one, temporary, stop, advance))  # type: ignore[misc]
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            raise UserError(
                f"{target}: the disk is full; free disk space and give the same command: it goes on there"
            ) from error


def _write(archive: zipfile.ZipFile, one: Member, temporary: Path, stop: Callable[[], None], advance: Advance) -> None:
    with archive.open(one.info) as source, open(temporary, "wb") as target:
        while piece := source.read(2**20):
            stop()
            target.write(piece)
            advance(len(piece))
    if temporary.stat().st_size != one.info.file_size:
        raise zipfile.BadZipFile(f"{one.info.filename} is shorter than declared")


def spans(archive: zipfile.ZipFile, wanted: Iterable[Member]) -> list[tuple[int, int]]:
    """The (first, end) bytes of members in their archive: up to the next header, or the central directory."""
    starts = sorted(info.header_offset for info in archive.infolist())
    ends = dict(zip(starts, [*starts[1:], archive.start_dir], strict=True))
    return [(one.info.header_offset, ends[one.info.header_offset]) for one in wanted]


def copy_space(infos: Iterable[Member]) -> int:
    """Unpacked bytes of members."""
    return sum(one.info.file_size for one in infos)
