"""`fetch dataset` against stand-ins of Zenodo and of the Imaging Data Commons on this machine."""

from __future__ import annotations

import hashlib
import json
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest

from medlord_bench.errors import MissingError, Stopped, UserError
from medlord_bench.fetching import datasets, whole
from medlord_bench.fetching.http import Client, FetchError
from medlord_bench.fetching.records import Endpoints
from medlord_bench.fetching.request import Request, read_record
from medlord_bench.fetching.series import fetch_series
from medlord_bench.fetching.sources import Archive, DatasetSource, Licence, known, source_of
from medlord_bench.fetching.tables import Series
from tests.fetching.server import Behaviour, Resource, Server, serving
from tests.fetching.zips import large_zip, zip_of

CC = Licence(name="CC BY 4.0", url="https://creativecommons.org/licenses/by/4.0/")
TOTAL = source_of("totalsegmentator-small").archives[0].pattern
SCAN, MASK = source_of("luna16").archives[0].pattern, source_of("luna16").archives[-1].pattern


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def put(server: Server, number: int, files: dict[str, bytes | Path], over: dict[str, Any] | None = None) -> None:
    """A record of Zenodo with these files."""
    entries = []
    for name, content in files.items():
        if f"/api/records/{number}/files/{name}/content" not in server.resources:
            server.add(f"/api/records/{number}/files/{name}/content", content)
        data = content if isinstance(content, bytes) else b""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        entries.append({"key": name, "size": size, "checksum": f"md5:{hashlib.md5(data).hexdigest()}"})
    found = {"id": number, "files": entries, "metadata": {"license": {"id": "cc-by-4.0"}}} | (over or {})
    server.add(f"/api/records/{number}", json.dumps(found).encode(), kind="application/json")


def request(server: Server, folder: Path, **over: Any) -> Request:
    client = Client(tries=3, timeout_s=2.0, sleep=lambda _: None)
    return Request(folder, client, endpoints=Endpoints(server.url("/api"), server.url("/bucket")), **over)


def source(*archives: Archive) -> DatasetSource:
    return DatasetSource(
        title="t", page="p", licence=CC, archives=archives, patients="unknown", read_with="--dataset x"
    )


def luna(server: Server) -> DatasetSource:
    """Three archives as LUNA16 has them: two subsets of three scans, and the lungs of all."""
    lungs: dict[str, bytes] = {}
    found: dict[str, bytes | Path] = {}
    for n, subset in enumerate(("subset9", "subset0")):
        files = {}
        for k in range(3):
            uid = f"1.2.{n}.{k}"
            files[f"{subset}/{uid}.mhd"] = f"ElementDataFile = {uid}.raw".encode()
            files[f"{subset}/{uid}.raw"] = random.Random(uid).randbytes(50_000)
            lungs[f"seg-lungs-LUNA16/{uid}.mhd"] = b"mask"
            lungs[f"seg-lungs-LUNA16/{uid}.zraw"] = random.Random(uid).randbytes(5_000)
        found[f"{subset}.zip"] = zip_of(files)
    found["seg-lungs-LUNA16.zip"] = zip_of(lungs)
    put(server, 7, found)
    names = [Archive(record=7, file=f"{s}.zip", folder=s, pattern=SCAN) for s in ("subset9", "subset0")]
    return source(
        *names, Archive(record=7, file="seg-lungs-LUNA16.zip", folder="seg-lungs-LUNA16", pattern=MASK, cases=False)
    )


def files_below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_whole_archives_are_verified_unpacked_and_removed(server: Server, tmp_path: Path) -> None:
    one = luna(server)
    found = datasets.fetch_dataset("luna16", one, "zenodo", request(server, tmp_path))
    assert found.files == 24
    assert len(files_below(tmp_path)) == 25 and (tmp_path / "fetch.json").is_file()
    assert (tmp_path / "subset0/1.2.1.2.raw").read_bytes() == random.Random("1.2.1.2").randbytes(50_000)
    record = read_record(tmp_path)
    assert record is not None and record.licence == "CC BY 4.0; record 7: cc-by-4.0"
    content = server.resources["/api/records/7/files/subset9.zip/content"].content
    assert isinstance(content, bytes)
    assert record.unpacked["subset9.zip"].sha256 == hashlib.sha256(content).hexdigest()
    assert datasets.fetch_dataset("luna16", one, "zenodo", request(server, tmp_path)).moved == 0
    (tmp_path / "subset0/1.2.1.2.raw").unlink()
    again = request(server, tmp_path)
    assert datasets.fetch_dataset("luna16", one, "zenodo", again).files == 24
    assert (tmp_path / "subset0/1.2.1.2.raw").is_file()
    assert again.client.moved < 1.2 * server.resources["/api/records/7/files/subset0.zip/content"].size


def test_a_few_cases_come_from_the_archives_in_turn_with_their_masks(server: Server, tmp_path: Path) -> None:
    found = datasets.fetch_dataset("luna16", luna(server), "zenodo", request(server, tmp_path, cases=3))
    assert found.cases == 3
    assert [p for p in files_below(tmp_path) if p.endswith("raw")] == [
        *("seg-lungs-LUNA16/1.2.0.0.zraw", "seg-lungs-LUNA16/1.2.0.1.zraw", "seg-lungs-LUNA16/1.2.1.0.zraw"),
        *("subset0/1.2.1.0.raw", "subset9/1.2.0.0.raw", "subset9/1.2.0.1.raw"),
    ]
    again = request(server, tmp_path, cases=3)
    datasets.fetch_dataset("luna16", luna(server), "zenodo", again)
    assert again.client.moved < 5_000, "directories only"
    more = datasets.fetch_dataset("luna16", luna(server), "zenodo", request(server, tmp_path, cases=100))
    assert more.cases == 6


def test_three_cases_of_two_gigabytes_move_under_one_percent(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "large.zip"
    large_zip(path, cases=420, each=5 * 2**20)
    assert path.stat().st_size > 2 * 2**30
    put(server, 8, {"large.zip": path})
    got = request(server, tmp_path / "data", cases=3)
    found = datasets.fetch_dataset("ts", source(Archive(record=8, file="large.zip", pattern=TOTAL)), "zenodo", got)
    one = server.resources["/api/records/8/files/large.zip/content"]
    assert found.files == 10 and found.moved <= one.sent < 0.01 * path.stat().st_size
    assert (tmp_path / "data/s0002/ct.nii.gz").read_bytes()[:5] == b"s0002"
    assert (tmp_path / "data/s0002/ct.nii.gz").stat().st_size == 5 * 2**20 + 5
    assert len(one.requests) <= 6, "neighbours are one request"
    print(f"moved {found.moved} of {path.stat().st_size} bytes ({found.moved / path.stat().st_size:.2%})")


def test_a_drop_in_a_member_goes_on_inside_it(server: Server, tmp_path: Path) -> None:
    one = luna(server)
    scans = server.resources["/api/records/7/files/subset9.zip/content"]
    scans.behaviours = [Behaviour(), Behaviour(), Behaviour(), Behaviour(drop=20_000), Behaviour(status=503)]
    got = request(server, tmp_path, cases=1)
    datasets.fetch_dataset("luna16", one, "zenodo", got)
    assert (tmp_path / "subset9/1.2.0.0.raw").read_bytes() == random.Random("1.2.0.0").randbytes(50_000)
    assert scans.behaviours == [] and got.client.moved < 75_000


def test_an_archive_that_changes_between_two_ranges_is_refused(server: Server, tmp_path: Path) -> None:
    one = luna(server)
    scans = server.resources["/api/records/7/files/subset9.zip/content"]
    scans.change = lambda resource, number: setattr(resource, "etag", f'"{number > 2}"')
    with pytest.raises(FetchError, match="changed on the server"):
        datasets.fetch_dataset("luna16", one, "zenodo", request(server, tmp_path, cases=1))
    assert files_below(tmp_path) == ["fetch.json"]


def test_a_server_without_ranges_is_named(server: Server, tmp_path: Path) -> None:
    one = luna(server)
    server.resources["/api/records/7/files/subset9.zip/content"].always = Behaviour(ranges=False)
    with pytest.raises(FetchError, match="knows no byte ranges; fetch the whole archive"):
        datasets.fetch_dataset("luna16", one, "zenodo", request(server, tmp_path, cases=1))
    assert datasets.fetch_dataset("luna16", one, "zenodo", request(server, tmp_path)).files == 24


def test_one_failure_ends_all_and_the_same_command_goes_on(server: Server, tmp_path: Path) -> None:
    one = luna(server)
    lungs = server.resources["/api/records/7/files/seg-lungs-LUNA16.zip/content"]

    def breaks(resource: Resource, number: int) -> None:
        if "range" not in resource.requests[-1] and number < 20:  # of the file, not of its directory
            resource.behaviours = [Behaviour(status=500)]

    lungs.change = breaks
    with pytest.raises(FetchError, match="gave up after 3 attempts"):
        datasets.fetch_dataset("luna16", one, "zenodo", request(server, tmp_path))
    lungs.change = None
    assert datasets.fetch_dataset("luna16", one, "zenodo", request(server, tmp_path)).files == 24


def test_an_unsafe_archive_is_refused_before_it_is_fetched(server: Server, tmp_path: Path) -> None:
    content = zip_of({"s0001/ct.nii.gz": b"x" * 200_000, "../out": b"y"}, zipfile.ZIP_STORED)
    put(server, 9, {"a.zip": content})
    got = request(server, tmp_path / "data")
    with pytest.raises(FetchError, match="would lie outside the folder"):
        datasets.fetch_dataset("ts", source(Archive(record=9, file="a.zip", pattern=TOTAL)), "zenodo", got)
    assert got.client.moved < 100_000 and files_below(tmp_path) == ["data/fetch.json"]


def test_a_record_that_lists_a_wrong_md5_leaves_nothing(server: Server, tmp_path: Path) -> None:
    one = luna(server)
    found = json.loads(bytes(server.resources["/api/records/7"].content))  # type: ignore[arg-type]
    found["files"][0]["checksum"] = "md5:" + "0" * 32
    server.add("/api/records/7", json.dumps(found).encode())
    with pytest.raises(FetchError, match="md5 is"):
        datasets.fetch_dataset("luna16", one, "zenodo", request(server, tmp_path, jobs=1))
    assert files_below(tmp_path) == ["fetch.json"]


@pytest.mark.parametrize(
    ("content", "expected", "kind"),
    [
        ({"id": 9}, "the record moved: the server answers with record 9", MissingError),
        ({"files": []}, "record 7 has no file subset9.zip", MissingError),
        (b"<html>", "not a record of Zenodo", FetchError),
        (b"[]", "not a record of Zenodo", FetchError),
    ],
)
def test_records_that_moved_or_are_none(
    content: Any, expected: str, kind: type[UserError], server: Server, tmp_path: Path
) -> None:
    one = luna(server)
    if isinstance(content, bytes):
        server.add("/api/records/7", content)
    else:
        put(server, 7, {}, content)
    with pytest.raises(kind, match=expected):
        datasets.fetch_dataset("luna16", one, "zenodo", request(server, tmp_path))
    del server.resources["/api/records/7"]
    with pytest.raises(MissingError, match="404: the file or record was moved"):
        datasets.fetch_dataset("luna16", one, "zenodo", request(server, tmp_path))


def test_the_disk_is_checked_before_the_first_byte(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = luna(server)
    packed = sum(r.size for path, r in server.resources.items() if path.endswith("content"))
    monkeypatch.setattr("medlord_bench.fetching.local.SPARE_BYTES", 0)
    monkeypatch.setattr("medlord_bench.fetching.local.free_bytes", lambda _: packed + 1000)  # no room to unpack
    with pytest.raises(UserError, match="3 archives and their files need .* are free"):
        datasets.fetch_dataset("luna16", one, "zenodo", request(server, tmp_path))
    assert files_below(tmp_path) == ["fetch.json"]


def test_a_folder_holds_one_data_set(server: Server, tmp_path: Path) -> None:
    datasets.fetch_dataset("luna16", luna(server), "zenodo", request(server, tmp_path, cases=1))
    with pytest.raises(UserError, match="the folder holds luna16"):
        datasets.fetch_dataset("imagecas", luna(server), "zenodo", request(server, tmp_path, cases=1))


# --------------------------------------------------------------------------------------------------------------- IDC
def bucket(server: Server, series: list[Series], each: int = 3) -> None:
    """A listing in two pages, and the objects."""
    for one in series:
        pages = []
        names = [f"{one.folder}/{n}.dcm" for n in range(each)]
        for name in names:
            server.add(f"/bucket/{name}", random.Random(name).randbytes(3_000))
        for part in (names[:2], names[2:]):
            rows = "".join(
                f"<Contents><Key>{escape(name)}</Key><Size>3000</Size>"
                f'<ETag>"{hashlib.md5(random.Random(name).randbytes(3_000)).hexdigest()}"</ETag></Contents>'
                for name in part
            )
            pages.append(rows)
        space = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
        path = f"/bucket/?list-type=2&prefix={one.folder}/"
        first = (
            f"<ListBucketResult {space}>{pages[0]}<NextContinuationToken>a=b</NextContinuationToken></ListBucketResult>"
        )
        server.add(path, first.encode())
        server.add(
            f"{path}&continuation-token=a%3Db", f"<ListBucketResult {space}>{pages[1]}</ListBucketResult>".encode()
        )


def test_luna16_from_idc_is_its_series_by_patient(server: Server, tmp_path: Path) -> None:
    one = source_of("luna16")
    assert one.idc is not None
    first = [s for s in one.idc.series() if s.patient in ("LIDC-IDRI-0001", "LIDC-IDRI-0002")]
    bucket(server, first)
    found = datasets.fetch_dataset("luna16", one, "idc", request(server, tmp_path, cases=2))
    assert (found.cases, found.files) == (2, 6)
    place = tmp_path / first[0].patient / first[0].uid
    assert sorted(p.name for p in place.iterdir()) == ["0.dcm", "1.dcm", "2.dcm"]
    assert (place / "0.dcm").read_bytes() == random.Random(f"{first[0].folder}/0.dcm").randbytes(3_000)
    again = request(server, tmp_path, cases=2)
    datasets.fetch_dataset("luna16", one, "idc", again)
    assert again.client.moved == 0


def test_a_damaged_object_and_an_odd_listing_are_refused(server: Server, tmp_path: Path) -> None:
    one = source_of("rider-lung")
    assert one.idc is not None
    series = one.idc.series()[:1]
    bucket(server, series)
    server.resources[f"/bucket/{series[0].folder}/1.dcm"].content = bytes(3000)
    from medlord_bench.fetching.request import Journal

    with pytest.raises(FetchError, match=r"1\.dcm: md5 is"):
        fetch_series(request(server, tmp_path), series, Journal(tmp_path, "rider-lung", ""))
    path = f"/bucket/?list-type=2&prefix={series[0].folder}/"
    for content, expected in (
        (b"<html", "not a listing"),
        (b"<!DOCTYPE x><a/>", "not a listing"),
        (b'<L xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>', "no such series any more"),
        (
            b'<L xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Contents><Key>../../x</Key><Size>1</Size></Contents></L>',
            "unexpected object",
        ),
    ):
        server.add(path, content)
        with pytest.raises(UserError, match=expected):
            fetch_series(request(server, tmp_path), series, Journal(tmp_path, "rider-lung", ""))


# -------------------------------------------------------------------------------------------------------- the table
def test_the_table_names_licence_page_and_patients_of_each() -> None:
    assert set(known()) == {"luna16", "imagecas", "mmwhs", "totalsegmentator", "totalsegmentator-small", "rider-lung"}
    for name, one in known().items():
        assert one.page.startswith("https://") and one.licence.url.startswith("https://") and one.patients, name
        assert one.sources() or one.by_hand, name
        assert all(archive.record or archive.url.startswith("https://") for archive in one.archives), name


def test_the_shipped_series_are_those_that_the_page_counts() -> None:
    luna16, rider = source_of("luna16").idc, source_of("rider-lung").idc
    assert luna16 is not None and rider is not None
    series = luna16.series()
    assert (len(series), len({one.patient for one in series})) == (888, 887)
    assert sum(one.patient == "LIDC-IDRI-0332" for one in series) == 2
    assert len({one.patient for one in rider.series()}) == 32
    assert len({one.uid for one in series}) == len({one.folder for one in series}) == 888


def test_what_only_a_person_can_fetch_is_said() -> None:
    with pytest.raises(MissingError, match="sign the consent form"):
        datasets.place_of("mmwhs", source_of("mmwhs"), None)
    with pytest.raises(UserError, match="--from idc: totalsegmentator is not there"):
        datasets.place_of("totalsegmentator", source_of("totalsegmentator"), "idc")
    with pytest.raises(UserError, match="did you mean 'luna16'"):
        source_of("luna")


def test_a_stop_is_a_stop_in_all_threads(server: Server, tmp_path: Path) -> None:
    one = luna(server)
    got = request(server, tmp_path)
    got.client.stop = lambda: got.client.moved > 30_000
    with pytest.raises(Stopped):
        datasets.fetch_dataset("luna16", one, "zenodo", got)
    assert datasets.fetch_dataset("luna16", one, "zenodo", request(server, tmp_path)).files == 24
    assert not (tmp_path / whole.FOLDER).exists()
