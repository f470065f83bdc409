"""What servers say of their files: records of Zenodo, and listings of the Imaging Data Commons' open bucket."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from medlord_bench.errors import MissingError
from medlord_bench.fetching.http import Client, FetchError
from medlord_bench.fetching.local import Wanted
from medlord_bench.fetching.tables import Series

S3 = "{http://s3.amazonaws.com/doc/2006-03-01/}"


@dataclass(frozen=True)
class Endpoints:
    """The addresses of the two services."""

    zenodo: str = "https://zenodo.org/api"
    idc: str = "https://idc-open-data.s3.amazonaws.com"


@dataclass(frozen=True)
class Record:
    """A Zenodo record. licence: as it names it. files: name -> what to fetch."""

    id: int
    licence: str
    files: dict[str, Wanted]


def zenodo_file(endpoint: str, record: int, name: str) -> str:
    """The address of a file of a record."""
    return f"{endpoint}/records/{record}/files/{quote(name)}/content"


def zenodo(client: Client, endpoint: str, number: int) -> Record:
    """Read a record. Raises `MissingError` if it was moved, `FetchError` for an answer that is no record."""
    url = f"{endpoint}/records/{number}"
    try:
        found: Any = json.loads(client.read(url))
        real, entries = int(found["id"]), list(found["files"])
        licence = str((found.get("metadata", {}).get("license") or {}).get("id", "not stated"))
        files = {str(one["key"]): _file(endpoint, number, one) for one in entries}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FetchError(
            f"{url}: not a record of Zenodo ({type(error).__name__}); the service may be in maintenance: try again later"
        ) from None
    if real != number:
        raise MissingError(
            f"{url}: the record moved: the server answers with record {real}; another version would give other numbers: "
            "compare the two pages, and report it so that the bench's list can be corrected"
        )
    return Record(number, licence, files)


def _file(endpoint: str, record: int, entry: dict[str, Any]) -> Wanted:
    kind, _, value = str(entry.get("checksum", "")).partition(":")
    name = str(entry["key"])
    md5 = value.lower() if kind == "md5" else None
    return Wanted(url=zenodo_file(endpoint, record, name), name=name, bytes=int(entry["size"]), md5=md5)


def idc_files(client: Client, endpoint: str, series: Series) -> list[Wanted]:
    """The files of a series in the bucket, with sizes and, where the server has one, md5 (S3: ListObjectsV2, ETag)."""
    found: list[Wanted] = []
    token = ""
    while True:
        url = f"{endpoint}/?list-type=2&prefix={series.folder}/" + (
            f"&continuation-token={quote(token, safe='')}" if token else ""
        )
        content = client.read(url)
        try:
            if b"<!DOCTYPE" in content:
                raise ElementTree.ParseError("a document type")
            tree = ElementTree.fromstring(content)
            found += [_object(endpoint, series, entry) for entry in tree.iter(f"{S3}Contents")]
        except (ElementTree.ParseError, ValueError) as error:
            raise FetchError(f"{url}: not a listing of the bucket ({error}); try again later") from None
        token = tree.findtext(f"{S3}NextContinuationToken") or ""
        if not token:
            break
    if not found:
        raise MissingError(
            f"{endpoint}/{series.folder}: the bucket has no such series any more; report it so that the table can be renewed"
        )
    return found


def _object(endpoint: str, series: Series, entry: ElementTree.Element) -> Wanted:
    key = entry.findtext(f"{S3}Key") or ""
    folder, _, name = key.partition("/")
    if folder != series.folder or not name or "/" in name or name.startswith("."):
        raise ValueError(f"unexpected object {key!r}")
    tag = (entry.findtext(f"{S3}ETag") or "").strip('"').lower()
    md5 = tag if len(tag) == 32 and "-" not in tag else None
    target = f"{series.patient}/{series.uid}/{name}"
    return Wanted(url=f"{endpoint}/{quote(key)}", name=target, bytes=int(entry.findtext(f"{S3}Size") or ""), md5=md5)
