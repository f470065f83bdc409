"""``fetch dataset``: the public data sets, by the licence that the user accepts, from a server or as a list of addresses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from medlord_bench.errors import MissingError, UserError
from medlord_bench.fetching import records
from medlord_bench.fetching.local import Wanted, gib
from medlord_bench.fetching.records import Endpoints, zenodo_file
from medlord_bench.fetching.request import Fetched, Journal, Request
from medlord_bench.fetching.series import chosen, fetch_series
from medlord_bench.fetching.some import fetch_some
from medlord_bench.fetching.sources import DatasetSource, Licence
from medlord_bench.fetching.whole import Listed, fetch_whole

Place = Literal["zenodo", "idc"]


def place_of(name: str, source: DatasetSource, wanted: str | None) -> Place:
    """Where to fetch from. Raises `MissingError` for a data set that only a person can fetch, `UserError` for an unknown
    place."""
    places = source.sources()
    if not places:
        raise MissingError(f"{name}: cannot be fetched by a program: {source.by_hand} ({source.page})")
    if wanted is None:
        return places[0]
    for place in places:
        if place == wanted:
            return place
    raise UserError(f"--from {wanted}: {name} is not there; expected {' or '.join(places)}")


def licence_of(source: DatasetSource, place: Place) -> Licence:
    return source.idc.licence if place == "idc" and source.idc is not None else source.licence


def terms(source: DatasetSource, place: Place) -> list[str]:
    """What a user reads before accepting."""
    licence = licence_of(source, place)
    lines = [source.title, f"  page: {source.page}", f"  licence: {licence.name} <{licence.url}>"]
    lines += [f"  note: {licence.note}"] if licence.note else []
    lines.append(f"  patients: {source.patients}")
    lines += [f"  by hand: {source.by_hand}"] if source.by_hand else []
    return lines


def addresses(source: DatasetSource, place: Place, cases: int | None) -> Iterator[str]:
    """What to fetch on a machine with a network, one line each."""
    endpoints = Endpoints()
    if place == "idc" and source.idc is not None:
        for one in chosen(source.idc.series(), cases):
            yield f"s3://idc-open-data/{one.folder}/*  ->  {one.patient}/{one.uid}/"
        return
    for archive in source.archives:
        url = archive.url or zenodo_file(endpoints.zenodo, archive.record or 0, archive.file)
        yield f"{url}  ->  archives/{archive.file}" + (f"  ({archive.about})" if archive.about else "")


def fetch_dataset(name: str, source: DatasetSource, place: Place, request: Request) -> Fetched:
    """Fetch a data set, or as many of its cases as `request.cases` says. The licence must have been accepted before.

    Raises `FetchError`, `MissingError` or `UserError` with one line; what is complete is kept, and the same command goes on.
    """
    request.folder.mkdir(parents=True, exist_ok=True)
    licence = licence_of(source, place)
    if place == "idc":
        assert source.idc is not None, "place_of allows it only where there is one"
        return fetch_series(request, source.idc.series(), Journal(request.folder, name, licence.name))
    listed, stated = listing(source, request)
    text = "; ".join([licence.name, *(f"record {number}: {words}" for number, words in stated.items())])
    journal = Journal(request.folder, name, text)
    if request.cases is not None:
        return fetch_some(request, listed, request.cases)
    return fetch_whole(request, listed, journal)


def listing(source: DatasetSource, request: Request) -> tuple[list[Listed], dict[int, str]]:
    """Each archive with size and md5 as its record says, and record -> the licence that it states."""
    found: dict[int, records.Record] = {}
    listed = []
    for archive in source.archives:
        if archive.record is None:
            listed.append(Listed(archive, Wanted(url=archive.url, name=archive.file)))
            continue
        if archive.record not in found:
            found[archive.record] = records.zenodo(request.client, request.endpoints.zenodo, archive.record)
        files = found[archive.record].files
        if archive.file not in files:
            raise MissingError(
                f"record {archive.record} has no file {archive.file}; it has {', '.join(sorted(files)[:8])}: report it, so that "
                "the bench's list can be corrected"
            )
        listed.append(Listed(archive, files[archive.file]))
    return listed, {number: record.licence for number, record in found.items()}


def outcome(name: str, source: DatasetSource, place: Place, fetched: Fetched, folder: str) -> str:
    """What was done, and the next command."""
    how = f"{fetched.cases} cases, " if fetched.cases else ""
    of = f" of {gib(fetched.of)}" if fetched.of is not None else ""
    read = "--dataset folder" if place == "idc" else source.read_with
    by_hand = f"; still to fetch by hand: {source.by_hand}" if source.by_hand else ""
    return (
        f"{name}: {how}{fetched.files} files in {folder}; {gib(fetched.moved)}{of} moved; read it with {read} --data-root {folder}"
        f"{by_hand}"
    )
