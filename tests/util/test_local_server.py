"""The server answers one reader on this machine, and nobody else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from medlord_bench.util.local_server import MOST_BYTES, Answer, LocalServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LocalServer]:
    large = tmp_path / "large"
    large.write_bytes(bytes(range(256)) * 10_000)
    routes = {
        "a.html": lambda query: Answer("text/html", b"<p>" + query.get("x", "").encode(), {"X-More": "1"}),
        "gone": lambda query: None,
        "large": lambda query: Answer("application/octet-stream", large),
    }
    posts = {"say": lambda content: Answer("text/plain", content)}
    with LocalServer(routes, posts=posts, headers={"X-All": "2"}) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def get(server: LocalServer, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, HTTPResponse]:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read(), answer


def path_of(server: LocalServer, path: str) -> str:
    return "/" + server.url(path).split("/", 3)[3]


def test_it_listens_on_this_machine_only(server: LocalServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.url("a.html").startswith(f"http://127.0.0.1:{server.server_port}/")


def test_a_route_answers_with_its_query_and_headers(server: LocalServer) -> None:
    status, content, answer = get(server, path_of(server, "a.html?x=caf%C3%A9"))
    assert (status, content) == (200, "<p>café".encode())
    assert answer.headers["X-More"] == "1" and answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/a.html", "/wrong/a.html", "//a.html", "/../a.html", "/%2e%2e/a.html"])
def test_without_the_secret_nothing_is_there(server: LocalServer, path: str) -> None:
    assert get(server, path)[0] == 404


@pytest.mark.parametrize("path", ["b.html", "gone", "../a.html", "%2e%2e/%2e%2e/etc/passwd", "a.html/../../x"])
def test_only_the_routes_are_there(server: LocalServer, path: str) -> None:
    assert get(server, path_of(server, path))[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "localhost:1", "127.0.0.1.evil.example:80"])
def test_another_host_s_name_is_refused(server: LocalServer, host: str) -> None:
    assert get(server, path_of(server, "a.html"), Host=host)[0] == 403


def test_nothing_is_written_where_no_route_takes_it(server: LocalServer) -> None:
    assert get(server, path_of(server, "a.html"), method="POST")[0] == 404


def post(server: LocalServer, path: str, content: bytes, **headers: str) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request("POST", path, content, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_a_post_reaches_its_route_alone(server: LocalServer) -> None:
    assert post(server, path_of(server, "say"), b"hello") == (200, b"hello")
    assert post(server, path_of(server, "a.html"), b"hello")[0] == 404
    assert post(server, "/wrong/say", b"hello")[0] == 404
    assert post(server, path_of(server, "say"), b"hello", Host="evil.example")[0] == 403
    assert get(server, path_of(server, "say"))[0] == 404


def test_a_post_without_a_length_or_with_too_much_is_refused(server: LocalServer) -> None:
    assert post(server, path_of(server, "say"), b"", **{"Content-Length": str(MOST_BYTES + 1)})[0] == 413
    assert post(server, path_of(server, "say"), b"", **{"Content-Length": "-1"})[0] == 411
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest("POST", path_of(server, "say"))
    connection.endheaders()
    assert connection.getresponse().status == 411


def test_a_file_is_sent_whole_with_the_headers_of_all_answers(server: LocalServer) -> None:
    status, content, answer = get(server, path_of(server, "large"))
    assert (status, content) == (200, bytes(range(256)) * 10_000)
    assert answer.headers["X-All"] == "2"
    assert "Python" not in answer.headers["Server"]
