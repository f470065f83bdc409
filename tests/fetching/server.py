"""A server on 127.0.0.1 that throttles, drops, lies and moves: what the network does to a fetch, on purpose."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Behaviour:
    """What one answer does. Everything else is as RFC 9110 says.

    drop: close the connection after so many bytes of the body. per_second: throttle. announce: Content-Length to claim.
    extra: bytes sent beyond the file. start: the first byte sent, whatever was asked for.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    drop: int | None = None
    per_second: int | None = None
    announce: int | None = None
    extra: bytes = b""
    ranges: bool = True
    start: int | None = None
    page: bool = False
    silent_s: float = 0.0
    hold_etag: bool = True
    empty: bool = False


@dataclass
class Resource:
    """A file of the server: content, or a path for a large one; and what its answers do, in order, then well."""

    content: bytes | Path
    behaviours: list[Behaviour] = field(default_factory=list)
    always: Behaviour = field(default_factory=Behaviour)
    etag: str | None = None
    kind: str = "application/octet-stream"
    change: Callable[[Resource, int], None] | None = None
    requests: list[dict[str, str]] = field(default_factory=list)
    sent: int = 0

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def tag(self) -> str:
        if self.etag is not None:
            return self.etag
        facts = self.content if isinstance(self.content, bytes) else str(self.content).encode()
        return '"' + hashlib.md5(facts).hexdigest() + '"'

    def read(self, first: int, end: int) -> Iterator[bytes]:
        if isinstance(self.content, bytes):
            for at in range(first, end, 2**16):
                yield self.content[at : min(end, at + 2**16)]
            return
        with open(self.content, "rb") as file:
            file.seek(first)
            while first < end:
                piece = file.read(min(2**16, end - first))
                first += len(piece)
                yield piece


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.resources: dict[str, Resource] = {}

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def add(self, path: str, content: bytes | Path, **kwargs: Any) -> Resource:
        self.resources[path] = Resource(content, **kwargs)
        return self.resources[path]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        one = self.server.resources.get(self.path)
        if one is None:
            self._status(404)
            return
        one.requests.append({key.lower(): value for key, value in self.headers.items()})
        if one.change is not None:
            one.change(one, len(one.requests))
        behaviour = one.behaviours.pop(0) if one.behaviours else one.always
        if behaviour.silent_s:
            time.sleep(behaviour.silent_s)
        if behaviour.page:
            self._answer(one, Behaviour(), 0, b"<html>maintenance</html>", "text/html")
        elif behaviour.status != 200:
            self._status(behaviour.status, behaviour.headers)
        else:
            self._file(one, behaviour)

    def _status(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, one: Resource, behaviour: Behaviour, first: int, content: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _file(self, one: Resource, behaviour: Behaviour) -> None:
        first, end = 0, one.size
        asked = self.headers.get("Range")
        condition = self.headers.get("If-Range")
        partial = bool(asked) and behaviour.ranges and (condition in (None, one.tag()))
        if partial and asked:
            low, _, high = asked.removeprefix("bytes=").partition("-")
            first, end = int(low), min(one.size, int(high) + 1) if high else one.size
            if first >= one.size:
                self._status(416)
                return
            first = first if behaviour.start is None else behaviour.start
        self.send_response(206 if partial else 200)
        self.send_header("Content-Type", one.kind)
        if behaviour.hold_etag and one.etag != "":
            self.send_header("ETag", one.tag())
        if partial:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{one.size}")
        length = end - first + len(behaviour.extra)
        if behaviour.empty:
            length = end = first = 0
        self.send_header("Content-Length", str(length if behaviour.announce is None else behaviour.announce))
        self.end_headers()
        self._body(one, behaviour, first, end)

    def _body(self, one: Resource, behaviour: Behaviour, first: int, end: int) -> None:
        left = behaviour.drop
        for piece in one.read(first, end):
            if left is not None:
                piece, left = piece[:left], left - len(piece)
            step = len(piece) if behaviour.per_second is None else max(1, behaviour.per_second // 20)
            for at in range(0, len(piece), max(1, step)):
                self.wfile.write(piece[at : at + step])
                one.sent += len(piece[at : at + step])
                if behaviour.per_second is not None:
                    time.sleep(0.05)
            if left is not None and left <= 0:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
        if behaviour.extra:
            self.wfile.write(behaviour.extra)


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
