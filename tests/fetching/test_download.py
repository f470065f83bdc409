"""Twenty fetches from a server that throttles, drops and lies: the right bytes, or one line and nothing half-kept."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from medlord_bench.errors import MissingError, Stopped, UserError
from medlord_bench.fetching import download as module
from medlord_bench.fetching import local
from medlord_bench.fetching.download import download, part_path
from medlord_bench.fetching.http import Client, FetchError, retry_after
from medlord_bench.fetching.local import Wanted, check_space, lock_path, present, read_lock
from tests.fetching.server import Behaviour, Resource, Server, serving

CONTENT = random.Random(0).randbytes(3_000_000)
OTHER = random.Random(1).randbytes(3_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()
HALF = Behaviour(drop=1_500_000)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def client() -> Iterator[Client]:
    slept: list[float] = []
    one = Client(tries=4, timeout_s=1.0, sleep=slept.append)
    one.slept = slept  # type: ignore[attr-defined]
    yield one
    one.close()


def wanted(server: Server, path: str = "/file.zip", **facts: Any) -> Wanted:
    facts = {"bytes": len(CONTENT), "md5": MD5} | facts
    return Wanted(url=server.url(path), name="file.zip", **facts)


def changes_at(request: int) -> Callable[[Resource, int], None]:
    def change(one: Resource, number: int) -> None:
        one.content = OTHER if number == request else CONTENT if number > request else one.content

    return change


def change_for_good(one: Resource, number: int) -> None:
    if number == 2:
        one.content = OTHER


def date_of(seconds: float) -> str:
    return formatdate(time.time() + seconds, usegmt=True)


BUSY = {"status": 503, "headers": {"Retry-After": "7"}}
# name -> the resource's settings, and what must come of it: None for the right bytes, else a word of the one line.
SCENARIOS: dict[str, tuple[dict[str, Any], str | None]] = {
    "a good server": ({}, None),
    "throttled": ({"always": Behaviour(per_second=6_000_000)}, None),
    "dropped once": ({"behaviours": [HALF]}, None),
    "dropped ten times": ({"behaviours": [Behaviour(drop=250_000) for _ in range(10)]}, None),
    "dropped always, without a byte": ({"always": Behaviour(drop=0)}, "gave up after 4"),
    "429 with seconds": ({"behaviours": [Behaviour(status=429, headers={"Retry-After": "3"})]}, None),
    "503 with a date": ({"behaviours": [Behaviour(status=503, headers={"Retry-After": date_of(5)})]}, None),
    "503 twice, then half, then 503": (
        {"behaviours": [Behaviour(**BUSY), Behaviour(**BUSY), HALF, Behaviour(**BUSY)]},
        None,
    ),
    "429 that asks for a day": ({"always": Behaviour(status=429, headers={"Retry-After": "86400"})}, "1440 minutes"),
    "503 for ever": ({"always": Behaviour(status=503)}, "gave up after 4"),
    "announces less": ({"always": Behaviour(announce=1_000_000)}, "announces 1000000 bytes"),
    "announces more": ({"always": Behaviour(announce=3_000_100)}, "announces 3000100 bytes"),
    "sends other bytes of the same length": ({"content": OTHER}, "md5 is"),
    "another file after a drop, and back": ({"behaviours": [HALF], "change": changes_at(2)}, None),
    "changed for good after a drop": ({"behaviours": [HALF], "change": change_for_good}, "md5 is"),
    "knows no ranges, drops once": ({"behaviours": [HALF], "always": Behaviour(ranges=False)}, None),
    "sends another range": ({"behaviours": [HALF, Behaviour(start=0)]}, None),
    "a page instead of the file": ({"always": Behaviour(page=True)}, "a page instead"),
    "ranges that end without a byte": ({"behaviours": [HALF], "always": Behaviour(empty=True)}, "gave up after 4"),
    "silent, then good": ({"behaviours": [Behaviour(silent_s=1.6)]}, None),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_right_bytes_or_one_line_and_nothing_half_kept(
    name: str, server: Server, client: Client, tmp_path: Path
) -> None:
    settings, expected = SCENARIOS[name]
    settings = {key: list(value) if isinstance(value, list) else value for key, value in settings.items()}
    one = server.add("/file.zip", settings.pop("content", CONTENT), **settings)
    path = tmp_path / "file.zip"
    if expected is None:
        lock = download(wanted(server), path, client)
        assert path.read_bytes() == CONTENT
        assert (lock.md5, lock.sha256, lock.bytes) == (MD5, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
        assert sorted(p.name for p in tmp_path.iterdir()) == ["file.zip", "file.zip.lock.json"]
        return
    with pytest.raises(UserError) as caught:
        download(wanted(server), path, client)
    assert expected in str(caught.value) and "\n" not in str(caught.value)
    assert not path.exists() and not lock_path(path).exists()
    part = part_path(path)
    assert (
        not part.exists() or one.content[: part.stat().st_size] == part.read_bytes() == CONTENT[: part.stat().st_size]
    )


def test_twenty_of_twenty() -> None:
    assert len(SCENARIOS) == 20


def test_what_a_drop_cost_is_only_what_was_missing(server: Server, client: Client, tmp_path: Path) -> None:
    one = server.add("/file.zip", CONTENT, behaviours=[HALF])
    download(wanted(server), tmp_path / "file.zip", client)
    assert one.requests[1]["range"] == "bytes=1500000-" and one.requests[1]["if-range"] == one.tag()
    assert one.sent == len(CONTENT) == client.moved


def test_it_waits_as_long_as_the_server_asks(server: Server, client: Client, tmp_path: Path) -> None:
    server.add("/file.zip", CONTENT, behaviours=[Behaviour(**BUSY)])
    download(wanted(server), tmp_path / "file.zip", client)
    assert sum(client.slept) == 7  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "seconds"), [("120", 120), ("Wed, 21 Oct 2026 07:28:00 GMT", 60), ("soon", None), ("", None), (None, None)]
)
def test_retry_after_is_a_number_or_a_date(text: str | None, seconds: float | None) -> None:
    assert retry_after(text, now=1792567620.0) == seconds  # 2026-10-21 07:27:00 UTC


def test_a_part_of_another_version_is_not_continued(server: Server, client: Client, tmp_path: Path) -> None:
    one = server.add("/file.zip", OTHER, behaviours=[HALF], always=Behaviour(status=503))
    path = tmp_path / "file.zip"
    with pytest.raises(FetchError):
        download(wanted(server, md5=None), path, client)
    assert part_path(path).stat().st_size == 1_500_000
    one.content, one.always = CONTENT, Behaviour()
    download(wanted(server), path, client)
    assert path.read_bytes() == CONTENT
    assert one.sent == 1_500_000 + len(CONTENT)  # the server answered If-Range with the whole of the new file


def test_without_a_tag_and_a_hash_nothing_is_continued(server: Server, client: Client, tmp_path: Path) -> None:
    one = server.add("/file.zip", CONTENT, behaviours=[HALF], etag="")
    download(wanted(server, md5=None), tmp_path / "file.zip", client)
    assert "range" not in one.requests[1]
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_more_bytes_than_the_record_says_are_refused(server: Server, client: Client, tmp_path: Path) -> None:
    server.add("/file.zip", CONTENT + b"more")
    with pytest.raises(FetchError, match="announces 3000004 bytes, its record 3000000"):
        download(wanted(server), tmp_path / "file.zip", client)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_file_that_moved_or_needs_an_account_ends_at_once(
    status: int, server: Server, client: Client, tmp_path: Path
) -> None:
    one = server.add("/file.zip", CONTENT, always=Behaviour(status=status))
    with pytest.raises(MissingError, match=str(status)):
        download(wanted(server), tmp_path / "file.zip", client)
    assert len(one.requests) == 1 and list(tmp_path.iterdir()) == []


def test_redirects_lead_to_https_or_this_machine_only(server: Server, client: Client, tmp_path: Path) -> None:
    server.add("/file.zip", CONTENT)
    server.add("/moved", b"", always=Behaviour(status=302, headers={"Location": "/file.zip"}))
    download(wanted(server, "/moved"), tmp_path / "file.zip", client)
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    for place in ("http://example.org/file.zip", "ftp://example.org/file.zip", "file:///etc/passwd"):
        server.add("/away", b"", always=Behaviour(status=302, headers={"Location": place}))
        with pytest.raises(FetchError, match="expected an https address"):
            download(wanted(server, "/away"), tmp_path / "other.zip", client)
    server.add("/round", b"", always=Behaviour(status=302, headers={"Location": "/round"}))
    with pytest.raises(FetchError, match="more than 5 redirects"):
        download(wanted(server, "/round"), tmp_path / "other.zip", client)


def test_no_server_elsewhere_leads_to_this_machine() -> None:
    client = Client()
    client.check_allowed("https://zenodo.org/x", local=False)
    for url in ("http://127.0.0.1/x", "https://127.0.0.1/x", "http://localhost:80/", "http://zenodo.org/x"):
        with pytest.raises(FetchError, match="expected an https address"):
            client.check_allowed(url, local=False)


def test_offline_sends_nothing(server: Server, tmp_path: Path) -> None:
    one = server.add("/file.zip", CONTENT)
    with pytest.raises(MissingError, match="--offline forbids"):
        download(wanted(server), tmp_path / "file.zip", Client(offline=True))
    assert one.requests == [] and list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_keeps_the_part(
    server: Server, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add("/file.zip", CONTENT)
    path = tmp_path / "file.zip"
    write = module._Fetched._write

    def full(self: Any, piece: bytes) -> None:
        if self.size >= 2_000_000:
            self.file.write(piece[:100])  # what still fitted

            class Full:
                def __getattr__(_, name: str) -> Any:
                    return getattr(real, name)

                def write(_, data: bytes) -> int:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            real, self.file = self.file, Full()
        write(self, piece)

    monkeypatch.setattr(module._Fetched, "_write", full)
    with pytest.raises(UserError, match="the disk is full after"):
        download(wanted(server), path, client)
    part = part_path(path).read_bytes()
    assert 0 < len(part) < len(CONTENT) and CONTENT.startswith(part)
    monkeypatch.undo()
    download(wanted(server), path, client)
    assert path.read_bytes() == CONTENT


def test_the_disk_is_looked_at_beforehand(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="GiB are free; free disk space"):
        check_space(tmp_path / "deep" / "er", 10**18, "3 archives")
    check_space(tmp_path, 0, "nothing")


def test_a_stop_keeps_the_part_and_the_next_fetch_goes_on(server: Server, tmp_path: Path) -> None:
    one = server.add("/file.zip", CONTENT)
    path = tmp_path / "file.zip"
    client = Client()
    client.stop = lambda: client.moved >= 2**20
    with pytest.raises(Stopped, match="what was fetched is kept"):
        download(wanted(server), path, client)
    have = part_path(path).stat().st_size
    assert 0 < have < len(CONTENT)
    rest = Client()  # what the server sends is no measure: a connection that was closed may have bytes on the way
    download(wanted(server), path, rest)
    assert path.read_bytes() == CONTENT
    assert one.requests[-1]["range"] == f"bytes={have}-" and rest.moved == len(CONTENT) - have


def test_a_killed_fetch_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    """SIGKILL in the middle: no clean-up runs."""
    one = server.add("/file.zip", CONTENT, always=Behaviour(per_second=2_000_000))
    path = tmp_path / "file.zip"
    code = (
        "import sys\nfrom pathlib import Path\nfrom medlord_bench.fetching.download import download\n"
        "from medlord_bench.fetching.local import Wanted\n"
        "from medlord_bench.fetching.http import Client\n"
        "download(Wanted.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Client())"
    )
    child = subprocess.Popen([sys.executable, "-c", code, wanted(server).model_dump_json(), str(path)])
    deadline = time.monotonic() + 60
    while not part_path(path).exists() or part_path(path).stat().st_size < 2**20:
        assert time.monotonic() < deadline and child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait(30)
    have = part_path(path).stat().st_size
    assert 2**20 <= have < len(CONTENT)
    one.always = Behaviour()
    client = Client()
    download(wanted(server), path, client)
    assert path.read_bytes() == CONTENT
    assert one.requests[-1]["range"] == f"bytes={have}-" and client.moved == len(CONTENT) - have


def test_two_fetches_of_one_file_do_not_disturb_each_other(server: Server, client: Client, tmp_path: Path) -> None:
    server.add("/file.zip", CONTENT)
    path = tmp_path / "file.zip"
    with module._alone(part_path(path)):
        with pytest.raises(UserError, match="another process is fetching"):
            download(wanted(server), path, client)
    download(wanted(server), path, client)
    assert path.read_bytes() == CONTENT


# ------------------------------------------------------------------------------------------------------------- locks
def test_the_first_fetch_locks_the_content(server: Server, client: Client, tmp_path: Path) -> None:
    one = server.add("/file.zip", CONTENT)
    path, unknown = tmp_path / "file.zip", wanted(server, md5=None, bytes=None)
    lock = download(unknown, path, client)
    assert lock == read_lock(lock_path(path)) and lock.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert present(path, unknown)
    path.unlink()
    one.content = OTHER
    with pytest.raises(UserError, match="the file changed on the server since"):
        download(unknown, path, client)
    assert not path.exists() and not part_path(path).exists()


def test_a_file_that_is_there_is_read_once_and_compared(
    server: Server, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, one = tmp_path / "file.zip", wanted(server)
    assert not present(path, one)
    path.write_bytes(CONTENT)
    assert present(path, one) and read_lock(lock_path(path)) is not None
    monkeypatch.setattr(local, "hashes_of", lambda _: pytest.fail("read again"))
    assert present(path, one)
    monkeypatch.undo()
    path.write_bytes(OTHER)
    with pytest.raises(UserError, match="md5 is"):
        present(path, one)
    with pytest.raises(UserError, match="sha256 is .* the file was changed"):
        present(path, wanted(server, md5=None))
    lock_path(path).write_text("{")
    with pytest.raises(UserError, match="not a lock"):
        present(path, one)
