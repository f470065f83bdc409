"""A few cases: single members out of archives on the server, by byte ranges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from zipfile import ZipFile

from medlord_bench.fetching import archives
from medlord_bench.fetching.archives import Member
from medlord_bench.fetching.http import FetchError
from medlord_bench.fetching.local import check_space
from medlord_bench.fetching.ranges import RemoteFile
from medlord_bench.fetching.request import Fetched, Meter, Request
from medlord_bench.fetching.whole import Listed


@dataclass(frozen=True)
class _Open:
    listed: Listed
    remote: RemoteFile
    archive: ZipFile
    members: list[Member]


def fetch_some(request: Request, listed: Sequence[Listed], cases: int) -> Fetched:
    """The first cases of the archives in turn, with what belongs to them in other archives.

    Only directories and the wanted members are moved. Each member's CRC-32 is checked; the archive's md5 cannot be, since
    it is not read whole.
    """
    with ExitStack() as stack:
        opened, pools = _open_until(stack, request, [one for one in listed if one.archive.cases], cases)
        chosen = list(_in_turn(pools, cases))
        opened += [_open(stack, request, one) for one in listed if not one.archive.cases]
        wanted = [_of(here.members, set(chosen)) for here in opened]
        _check_complete(opened, wanted, chosen)
        todo = [archives.missing(members, request.folder) for members in wanted]
        size = sum(map(archives.copy_space, todo))
        check_space(request.folder, size, f"{len(chosen)} cases")
        with request.progress.task("fetch, MiB", size // 2**20) as task:
            meter = Meter(task)
            for here, members in zip(opened, todo, strict=True):
                here.remote.want(archives.spans(here.archive, members))
                url = here.listed.wanted.url
                archives.unpack(here.archive, url, members, request.folder, request.client.check_stop, meter)
        whole = sum(here.remote.size for here in opened)
    return Fetched(cases=len(chosen), files=sum(map(len, wanted)), moved=request.client.moved, of=whole)


def _open_until(
    stack: ExitStack, request: Request, naming: Sequence[Listed], cases: int
) -> tuple[list[_Open], list[list[str]]]:
    """As many archives as it takes to have `cases` cases, one case of each first, and the cases of each.

    An archive is opened only if a case may come from it: the directory of a large one takes megabytes.
    """
    opened: list[_Open] = []
    pools: list[list[str]] = []
    for one in naming:
        if len(opened) >= cases and sum(map(len, pools)) >= cases:
            break
        opened.append(_open(stack, request, one))
        pools.append(list(dict.fromkeys(member.case for member in opened[-1].members if member.case)))
    return opened, pools


def _open(stack: ExitStack, request: Request, one: Listed) -> _Open:
    remote = RemoteFile(one.wanted.url, request.client, one.wanted.bytes)
    stack.callback(remote.close)
    archive = stack.enter_context(archives.opened(remote, one.wanted.url))  # type: ignore[arg-type]
    found = archives.members(archive, one.wanted.url, one.archive.pattern, one.archive.folder)
    return _Open(one, remote, archive, found)


def _in_turn(pools: Sequence[Sequence[str]], count: int) -> Iterator[str]:
    """The first of each pool, then the second of each, up to `count`."""
    for depth in range(max(map(len, pools), default=0)):
        for pool in pools:
            if depth < len(pool) and count > 0:
                count -= 1
                yield pool[depth]


def _of(members: Sequence[Member], cases: set[str]) -> list[Member]:
    return [one for one in members if one.case in cases or not one.case]


def _check_complete(opened: Sequence[_Open], wanted: Sequence[Sequence[Member]], chosen: Sequence[str]) -> None:
    """Raises `FetchError` if an archive that belongs to all cases has nothing of a chosen one."""
    for one, members in zip(opened, wanted, strict=True):
        have = {member.case for member in members}
        lacking = [] if one.listed.archive.cases else [case for case in chosen if case not in have]
        if lacking:
            raise FetchError(f"{one.listed.wanted.url}: has nothing of case {lacking[0]}; the archive is incomplete")
