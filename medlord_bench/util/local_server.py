"""A small web server for one reader on this machine: 127.0.0.1 only, behind a secret path."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

ADDRESS = "127.0.0.1"
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
MOST_BYTES = 2**18  # of a POST
TIMEOUT_S = 30  # of a client that sends or takes nothing


@dataclass(frozen=True)
class Answer:
    """What a route gives: the content, or the file that has it, and its type."""

    kind: str
    content: bytes | Path
    headers: Mapping[str, str] = field(default_factory=dict)
    status: HTTPStatus = HTTPStatus.OK


Route = Callable[[Mapping[str, str]], Answer | None]  # from the query's fields; None: there is no such thing
Post = Callable[[bytes], Answer]  # from the content that was sent


class LocalServer(ThreadingHTTPServer):
    """Serves `routes` (path -> function) below a random path that only the printed address has.

    It answers requests that name this machine as their host, so that no page of another site can reach it by a name that
    resolves to 127.0.0.1. port: 0 for a free one. posts: path -> function of what is sent, at most `MOST_BYTES`.
    headers: of every answer. Files are sent in pieces, so that a large one takes no memory.
    """

    daemon_threads = True

    def __init__(
        self,
        routes: Mapping[str, Route],
        port: int = 0,
        posts: Mapping[str, Post] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__((ADDRESS, port), _Handler)
        self.routes, self.posts = routes, posts or {}
        self.headers = {**HEADERS, **(headers or {})}
        self.token = secrets.token_urlsafe(16)

    def url(self, path: str) -> str:
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/{path}"


class _Handler(BaseHTTPRequestHandler):
    server: LocalServer
    timeout = TIMEOUT_S

    def do_GET(self) -> None:
        path = self._path()
        if path is None:
            return
        route = self.server.routes.get(path)
        answer = None if route is None else route(dict(parse_qsl(urlsplit(self.path).query)))
        self._send(answer or _plain(HTTPStatus.NOT_FOUND, "not found"))

    def do_POST(self) -> None:
        path = self._path()
        if path is not None:
            self._send(self._posted(path))

    def _posted(self, path: str) -> Answer:
        post, length = self.server.posts.get(path), self.headers.get("Content-Length", "")
        if post is None:
            return _plain(HTTPStatus.NOT_FOUND, "not found")
        if not length.isdecimal():
            return _plain(HTTPStatus.LENGTH_REQUIRED, "the length of the content is missing")
        if int(length) > MOST_BYTES:
            return _plain(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MOST_BYTES} bytes")
        content = self.rfile.read(int(length))
        if len(content) < int(length):
            return _plain(HTTPStatus.BAD_REQUEST, "the content is incomplete")
        return post(content)

    def _path(self) -> str | None:
        """The path below the secret one; None if the request was refused."""
        _, token, path = f"{urlsplit(self.path).path}//".split("/", 2)
        port = self.server.server_port
        if self.headers.get("Host") not in (f"{ADDRESS}:{port}", f"localhost:{port}"):
            self._send(_plain(HTTPStatus.FORBIDDEN, "this server answers this machine only"))
            return None
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            self._send(_plain(HTTPStatus.NOT_FOUND, "not found"))
            return None
        return path.strip("/")

    def _send(self, answer: Answer) -> None:
        content = answer.content
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        self.send_response(answer.status)
        given = {"Content-Type": answer.kind, "Content-Length": str(size), **self.server.headers, **answer.headers}
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError, TimeoutError):  # the browser went to another page
            if isinstance(content, bytes):
                self.wfile.write(content)
            else:
                with open(content, "rb") as file:
                    shutil.copyfileobj(file, self.wfile, 2**20)

    def version_string(self) -> str:
        return "medlord-bench"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal belongs to the command."""


def _plain(status: HTTPStatus, text: str) -> Answer:
    return Answer("text/plain", text.encode(), status=status)
