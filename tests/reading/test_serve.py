"""The server shows the pack to one browser of this machine, and nothing else to anybody."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from medlord_bench.errors import UserError
from medlord_bench.reading.answer_log import AnswerLog
from medlord_bench.reading.pack import Pack, damaged, write_manifest
from medlord_bench.reading.serve import address, returns_of, server_of, sound_pack
from medlord_bench.util.local_server import MOST_BYTES, LocalServer
from tests.reading.pack_data import write_pack
from tests.reading.test_answer_log import BEGIN, answer


class Served:
    def __init__(self, folder: Path, pack: Pack, log: AnswerLog, server: LocalServer) -> None:
        self.folder, self.pack, self.log, self.server = folder, pack, log, server

    def ask(self, path: str, content: bytes | None = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """A request below the secret path; a path that begins with "/" is asked for as it is."""
        connection = HTTPConnection("127.0.0.1", self.server.server_port, timeout=10)
        whole = path if path.startswith("/") else f"/{self.server.token}/{path}"
        connection.request("GET" if content is None else "POST", whole, content, headers)
        reply = connection.getresponse()
        return reply.status, reply.read(), dict(reply.headers)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    folder = tmp_path / "pack"
    pack = write_pack(folder, practice=False)
    log = AnswerLog(tmp_path / "R1.jsonl", sound_pack(folder))
    with server_of(folder, pack, log) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Served(folder, pack, log, server)
        server.shutdown()
        thread.join()


def test_page_and_cases_are_served_with_strict_headers(served: Served) -> None:
    assert address(served.server).endswith(f"/{served.server.token}/index.html")
    for name in ("index.html", "viewer.js", "reader.js", "reader.css", "study.js", "cases/K7Q2MA.i16"):
        status, content, headers = served.ask(name)
        assert status == 200 and content, name
        assert headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert headers["Cache-Control"] == "no-store" and headers["Server"] == "medlord-bench"
    assert served.ask("cases/K7Q2MA.i16")[1] == (served.folder / "cases/K7Q2MA.i16").read_bytes()


@pytest.mark.parametrize(
    "path",
    ["/index.html", "/wrong/index.html", "/", "", "pack.json", "cases", "cases/", "cases/AAAAAA.i16", "../R1.jsonl"]
    + ["cases/../../R1.jsonl", "%2e%2e/R1.jsonl", "/etc/passwd", "//etc/passwd", "begin", "cases/K7Q2MA.js"],
)
def test_nothing_else_is_there(served: Served, path: str) -> None:
    assert served.ask(path)[0] == 404


def test_a_foreign_host_and_an_oversized_answer_are_refused(served: Served) -> None:
    assert served.ask("index.html", Host="evil.example")[0] == 403
    assert served.ask("begin", BEGIN, Host="evil.example")[0] == 403
    assert served.ask("answer", b"", **{"Content-Length": str(MOST_BYTES + 1)})[0] == 413
    assert served.ask("index.html", b"{}")[0] == 404, "nothing is written there"
    assert served.log.path.read_bytes() == b""


def test_answers_are_saved_and_a_second_one_is_refused(served: Served) -> None:
    assert served.ask("begin", BEGIN)[:2] == (200, b'{"saved": true}')
    assert served.ask("answer", answer(served.pack))[0] == 200
    status, content, _ = served.ask("answer", answer(served.pack))
    assert (status, json.loads(content)["error"]) == (409, "locked")
    assert served.ask("answer", answer(served.pack, 1, ms=-1))[0] == 400
    assert served.log.path.read_bytes().count(b"\n") == 2
    assert b'"item": 0' in served.ask("study.js")[1], "a reload goes on"


def test_a_full_disk_is_said(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(log: AnswerLog, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AnswerLog, "_write", full)
    status, content, _ = served.ask("begin", BEGIN)
    assert (status, json.loads(content)["error"]) == (507, "disk")


def test_a_case_that_was_changed_is_not_shown(served: Served) -> None:
    path = served.folder / "cases/B4WX9C.i16"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    assert sound_pack(served.folder) == served.pack, "its size is right"
    status, content, _ = served.ask("cases/B4WX9C.i16")
    assert (status, json.loads(content)["error"]) == (500, "damaged")
    assert damaged(served.folder, served.pack) == ["cases/B4WX9C.i16: changed"]


def test_the_browser_sees_no_path_and_no_hash_of_a_source(served: Served) -> None:
    text = served.ask("study.js")[1].decode()
    assert str(served.folder) not in text and '"files"' not in text
    assert json.loads(text.removeprefix("window.study = ").rstrip(";\n"))["pack"]["items"] == [
        list(item) for item in served.pack.items
    ]


@pytest.mark.parametrize("name", ["key.json", "cases/key.json", "key.json.age"])
def test_a_key_below_the_pack_is_refused(tmp_path: Path, name: str) -> None:
    write_pack(tmp_path)
    (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match="the pack contains a key"):
        sound_pack(tmp_path)


def test_a_damaged_or_hostile_pack_is_refused(tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "p")
    (tmp_path / "p/.DS_Store").write_text("of a file manager")
    assert sound_pack(tmp_path / "p") == pack
    for change, words in (
        ({"files": {**pack.files, "../../secret.i16": "0" * 64}}, "../../secret.i16: missing"),
        ({"items": (("../../secret",),)}, "case ../../secret is missing"),
        ({"reader": "../../R1"}, "'../../R1' is not an alias"),
        ({"items": (("K7Q2MA", "B4WX9C"),)}, "expected 1 codes each"),
    ):
        write_manifest(tmp_path / "p", pack.model_copy(update=change))
        with pytest.raises(UserError, match=re.escape(words)):
            sound_pack(tmp_path / "p")
    write_manifest(tmp_path / "p", pack)
    case = tmp_path / "p/cases/K7Q2MA.i16"
    content = case.read_bytes()
    case.write_bytes(content[:-2])
    with pytest.raises(UserError, match="K7Q2MA.i16: changed"):
        sound_pack(tmp_path / "p")
    case.unlink()
    (tmp_path / "other.i16").write_bytes(content)
    case.symlink_to(tmp_path / "other.i16")
    with pytest.raises(UserError, match="is a link"):
        sound_pack(tmp_path / "p")


def test_answers_go_to_the_study_or_here_but_not_into_the_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "study/packs/R1"
    pack = write_pack(inside)
    (tmp_path / "study/protocol.yaml").write_text("{}")
    alone = tmp_path / "alone"
    write_pack(alone)
    monkeypatch.chdir(tmp_path)
    assert returns_of(inside, pack, None) == tmp_path / "study/returns/R1.jsonl"
    assert returns_of(alone, pack, None) == tmp_path / "returns/R1.jsonl"
    assert returns_of(alone, pack, tmp_path / "x") == tmp_path / "x/R1.jsonl"
    monkeypatch.chdir(alone)
    with pytest.raises(UserError, match="is inside the pack"):
        returns_of(Path(), pack, None)


def test_a_kill_in_the_middle_loses_no_answer(tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "pack", practice=False)
    command = [sys.executable, "-m", "medlord_bench", "reading", "serve", str(tmp_path / "pack")]
    command += ["--out", str(tmp_path / "returns")]
    for item in range(2):  # each time: start, answer one item, kill
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            port, token = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/([^/]+)/index\.html", url).groups()  # type: ignore[union-attr]
            for path, content in ([("begin", BEGIN)] if item == 0 else []) + [("answer", answer(pack, item))]:
                connection = HTTPConnection("127.0.0.1", int(port), timeout=10)
                connection.request("POST", f"/{token}/{path}", content)
                assert connection.getresponse().status == 200
            process.send_signal(signal.SIGKILL)
    kept = [json.loads(line) for line in (tmp_path / "returns/R1.jsonl").read_text().splitlines()]
    assert [line.get("item") for line in kept] == [None, 0, 1]


def test_a_pack_without_the_page_says_so(tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "R1")
    kept = {name: sha for name, sha in pack.files.items() if not name.endswith(".i16")}
    for path in (tmp_path / "R1").rglob("*.i16"):
        path.unlink()
    write_manifest(tmp_path / "R1", pack.model_copy(update={"files": kept}))
    with pytest.raises(UserError, match="was made without the format browser"):
        sound_pack(tmp_path / "R1")
