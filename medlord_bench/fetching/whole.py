"""Whole archives: fetched several at once, verified, unpacked, and removed when their files are there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medlord_bench.errors import UserError
from medlord_bench.fetching import archives
from medlord_bench.fetching.download import download, remaining
from medlord_bench.fetching.http import FetchError
from medlord_bench.fetching.local import Wanted, check_space, lock_path, present, read_lock
from medlord_bench.fetching.ranges import RemoteFile
from medlord_bench.fetching.request import Fetched, Journal, Meter, Request, Unpacked, counted, in_parallel
from medlord_bench.fetching.sources import Archive

FOLDER = "archives"


@dataclass(frozen=True)
class Listed:
    """An archive and where its record says that it is."""

    archive: Archive
    wanted: Wanted


def fetch_whole(request: Request, listed: Sequence[Listed], journal: Journal) -> Fetched:
    """Every archive that is not unpacked yet. The disk is checked before the first byte.

    Raises `UserError` if the disk has not the space, and as `download` and `archives.unpack`.
    """
    todo = [one for one in listed if not journal.has(one.archive.file)]
    places = {one.archive.file: request.folder / FOLDER / one.archive.file for one in todo}
    to_fetch = sum(remaining(places[one.archive.file], one.wanted) for one in todo)
    check_space(request.folder, to_fetch + _to_unpack(request, todo, places), f"{len(todo)} archives and their files")
    total = sum(one.wanted.bytes or 0 for one in todo)
    with request.progress.task("fetch, MiB", total // 2**20) as task:
        meter = Meter(task)

        def work(one: Listed) -> None:
            path = places[one.archive.file]
            if not present(path, one.wanted):
                download(one.wanted, path, request.client, meter)
            _unpack(request, one, path, journal)

        in_parallel(work, todo, request.jobs, request.client)
    with suppress(OSError):
        (request.folder / FOLDER).rmdir()
    facts = journal.record.unpacked.values()
    return Fetched(cases=0, files=sum(one.files for one in facts), moved=request.client.moved)


def _to_unpack(request: Request, todo: Sequence[Listed], places: dict[str, Path]) -> int:
    """Bytes that the archives will unpack to, by their directories, which are read from the server.

    An archive whose server has no byte ranges is counted when it is there: `unpack` looks at the disk again.
    """
    size = 0
    for one in todo:
        path, name = places[one.archive.file], one.archive.file
        source: Any = path
        if not path.is_file():
            try:
                source = RemoteFile(one.wanted.url, request.client, one.wanted.bytes)
            except FetchError:  # no byte ranges
                continue
        with nullcontext() if source is path else source, archives.opened(source, name) as archive:
            found = archives.members(archive, name, one.archive.pattern, one.archive.folder)
            size += archives.copy_space(archives.missing(found, request.folder))
    return size


def _unpack(request: Request, one: Listed, path: Path, journal: Journal) -> None:
    name = one.archive.file
    with archives.opened(path, str(path)) as archive:
        found = archives.members(archive, str(path), one.archive.pattern, one.archive.folder)
        archives.unpack(archive, str(path), found, request.folder, request.client.check_stop)
    lock = read_lock(lock_path(path))
    if lock is None:
        raise UserError(f"{path}: its lock was removed while it was unpacked; give the same command again")
    size, folders = archives.copy_space(found), counted(member.target for member in found)
    journal.add(name, Unpacked(url=lock.url, bytes=size, folders=folders, sha256=lock.sha256, md5=lock.md5))
    if not request.keep_archives:
        path.unlink()
        lock_path(path).unlink()
