"""A small web server for one reader on this machine: 127.0.0.1 only, behind a secret path."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

ADDRESS = "127.0.0.1"
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


@dataclass(frozen=True)
class Answer:
    """What a route gives: the content and its type."""

    kind: str
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


Route = Callable[[Mapping[str, str]], Answer | None]  # from the query's fields; None: there is no such thing


class LocalServer(ThreadingHTTPServer):
    """Serves `routes` (path -> function) below a random path that only the printed address has.

    It answers GET requests that name this machine as their host, so that no page of another site can reach it by a name that
    resolves to 127.0.0.1. port: 0 for a free one.
    """

    daemon_threads = True

    def __init__(self, routes: Mapping[str, Route], port: int = 0) -> None:
        super().__init__((ADDRESS, port), _Handler)
        self.routes, self.token = routes, secrets.token_urlsafe(16)

    def url(self, path: str) -> str:
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/{path}"


class _Handler(BaseHTTPRequestHandler):
    server: LocalServer

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        _, token, path = f"{address.path}//".split("/", 2)
        port = self.server.server_port
        if self.headers.get("Host") not in (f"{ADDRESS}:{port}", f"localhost:{port}"):
            return self._send(HTTPStatus.FORBIDDEN, Answer("text/plain", b"this server answers this machine only"))
        route = self.server.routes.get(path.strip("/"))
        if not secrets.compare_digest(token.encode(), self.server.token.encode()) or route is None:
            return self._send(HTTPStatus.NOT_FOUND, Answer("text/plain", b"not found"))
        answer = route(dict(parse_qsl(address.query)))
        if answer is None:
            return self._send(HTTPStatus.NOT_FOUND, Answer("text/plain", b"not found"))
        return self._send(HTTPStatus.OK, answer)

    def _send(self, status: HTTPStatus, answer: Answer) -> None:
        self.send_response(status)
        given = {"Content-Type": answer.kind, "Content-Length": str(len(answer.content)), **HEADERS, **answer.headers}
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal belongs to the command."""
