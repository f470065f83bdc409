"""DICOM series from the Imaging Data Commons' open bucket, into PATIENT/SERIES/ below the folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from medlord_bench.fetching.download import fetch_unlocked
from medlord_bench.fetching.local import Wanted, check_space
from medlord_bench.fetching.records import idc_files
from medlord_bench.fetching.request import Fetched, Journal, Meter, Request, Unpacked, counted, in_parallel
from medlord_bench.fetching.tables import Series


def chosen(series: Sequence[Series], patients: int | None) -> list[Series]:
    """All series of the first `patients` patients."""
    names = list(dict.fromkeys(one.patient for one in series))[:patients]
    return [one for one in series if one.patient in set(names)]


def fetch_series(request: Request, series: Sequence[Series], journal: Journal) -> Fetched:
    """Every file of the series that are not complete yet; a series is recorded when all its files are right.

    Raises `UserError` if the disk has not the space, and as `download`.
    """
    wanted = chosen(series, request.cases)
    todo = [one for one in wanted if not journal.has(one.uid)]
    files: dict[str, list[Wanted]] = {}

    def list_one(one: Series) -> None:
        files[one.uid] = idc_files(request.client, request.endpoints.idc, one)

    in_parallel(list_one, todo, request.jobs, request.client)
    lacking = [file for one in todo for file in files[one.uid] if not (request.folder / file.name).is_file()]
    size = sum(file.bytes or 0 for file in lacking)
    check_space(request.folder, size, f"{len(lacking)} files")
    with request.progress.task("fetch, MiB", size // 2**20) as task:
        meter = Meter(task)

        def fetch_one(one: Series) -> None:
            hashes = [
                fetch_unlocked(file, request.folder / file.name, request.client, meter) for file in files[one.uid]
            ]
            whole = hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()  # of the files' sha256, in order
            url = f"{request.endpoints.idc}/{one.folder}"
            count = sum(file.bytes or 0 for file in files[one.uid])
            folders = counted(file.name for file in files[one.uid])
            journal.add(one.uid, Unpacked(url=url, bytes=count, folders=folders, sha256=whole))

        in_parallel(fetch_one, todo, request.jobs, request.client)
    done = [journal.record.unpacked[one.uid] for one in wanted]
    return Fetched(len({one.patient for one in wanted}), sum(one.files for one in done), request.client.moved)
