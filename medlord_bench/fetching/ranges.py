"""A file on a server, read in pieces: what `zipfile` needs to take single members out of an archive of gigabytes.

Reading at a position requests from there to the end of the span that holds it, and goes on in the same answer as long
as reading is sequential; a dropped connection goes on where it was. Spans are the members that are wanted: so that a
member costs one request, and nothing else of the archive is moved. Each answer must be of the same content as the first
(If-Range with its ETag or Last-Modified).
"""

from __future__ import annotations

import bisect
import io
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from medlord_bench.fetching.download import content_range, tag_of
from medlord_bench.fetching.http import Client, FetchError, Retry, words_of

if TYPE_CHECKING:
    import httpx

AHEAD = 2**16  # bytes of a request outside all spans: the directory at an archive's end is read in pieces


class RemoteFile(io.RawIOBase):
    """A seekable file behind an address. size: as expected, None if that is not known.

    Raises `FetchError` if the server knows no ranges, or the file has another size or changes while it is read.
    """

    def __init__(self, url: str, client: Client, size: int | None = None) -> None:
        self.url, self.client, self.expected = url, client, size
        self.at, self.tag = 0, ""
        self.spans: list[tuple[int, int]] = []
        self._answer: AbstractContextManager[httpx.Response] | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._rest, self._next = b"", -1
        self.size = 0
        self._fill(0, 1)  # learns the size
        self._close_answer()

    def want(self, spans: Iterable[tuple[int, int]]) -> None:
        """The (first, end) positions that will be read in order; neighbours become one request."""
        joined: list[tuple[int, int]] = []
        for first, end in sorted(spans):
            if joined and first <= joined[-1][1]:
                joined[-1] = joined[-1][0], max(end, joined[-1][1])
            else:
                joined.append((first, end))
        self.spans = joined
        self._close_answer()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence] + offset
        return self.at

    def read(self, size: int | None = -1) -> bytes:
        wanted = self.size - self.at if size is None or size < 0 else min(size, self.size - self.at)
        found = b""
        failures = 0
        while len(found) < wanted:
            try:
                piece = self._some(wanted - len(found))
                failures = 0
            except Retry as failure:
                self._close_answer()
                self.client.wait(self.url, failure, failures)
                failures += 1
                continue
            found += piece
            self.at += len(piece)
        return found

    def close(self) -> None:
        self._close_answer()
        super().close()

    def _some(self, count: int) -> bytes:
        """At least one byte from `at`."""
        if self._next != self.at:
            self._close_answer()
            self._fill(self.at, self._end_of(self.at, count))
        while not self._rest:
            piece = self._piece()
            if not piece:  # the end of the answer: the next span
                self._close_answer()
                self._fill(self.at, self._end_of(self.at, count))
                piece = self._piece()
                if not piece:
                    raise Retry("the server ends its answer without a byte")
            self._rest = piece
        piece, self._rest = self._rest[:count], self._rest[count:]
        self._next = self.at + len(piece)
        return piece

    def _piece(self) -> bytes:
        """The next bytes of the answer; empty at its end. Raises `Retry` if the connection drops."""
        import httpx

        try:
            piece = next(self._pieces, b"")
        except httpx.TransportError as error:
            raise Retry(words_of(error)) from error
        self.client.count(piece)
        return piece

    def _end_of(self, position: int, count: int) -> int:
        """Where a request that begins at `position` ends."""
        index = bisect.bisect_right(self.spans, (position, self.size)) - 1
        if index >= 0 and position < self.spans[index][1]:
            return self.spans[index][1]
        return min(self.size, position + max(count, AHEAD))

    def _fill(self, first: int, end: int) -> None:
        """Open the answer for [first, end); checks that it is of the same file."""
        headers = {"Range": f"bytes={first}-{end - 1}"} | ({"If-Range": self.tag} if self.tag else {})
        failures = 0
        while True:
            answer = self.client.open(self.url, headers)
            try:
                response = answer.__enter__()
                break
            except Retry as failure:
                self.client.wait(self.url, failure, failures)
                failures += 1
        self._answer = answer
        try:
            self._check(response, first)
        except FetchError:
            self._close_answer()
            raise
        self._pieces, self._next = response.iter_raw(), first

    def _check(self, response: httpx.Response, first: int) -> None:
        start, total = content_range(response.headers.get("Content-Range", ""))
        if response.status_code != 206:
            why = "the file changed on the server" if self.tag else "the server knows no byte ranges"
            raise FetchError(f"{self.url}: {why}; fetch the whole archive: leave out --cases")
        wrong = self.expected is not None and total != self.expected
        if start != first or total is None or wrong or (self.size and total != self.size):
            raise FetchError(
                f"{self.url}: the server sends bytes {start} of {total}; expected {first} of {self.expected or self.size or 'a known size'}: "
                "the file was changed, or the server counts wrongly: try again later"
            )
        tag = tag_of(response)
        if self.tag and tag and tag != self.tag:
            raise FetchError(f"{self.url}: the file changed on the server; give the same command again")
        self.size, self.tag = total, self.tag or tag

    def _close_answer(self) -> None:
        self._rest, self._next, self._pieces = b"", -1, iter(())
        if self._answer is not None:
            self._answer.__exit__(None, None, None)
            self._answer = None
