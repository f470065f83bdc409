"""Requests to servers of data: https only, redirects checked, waiting as the server asks, errors of one line.

httpx sends the requests; this module decides which are allowed, which are repeated, and what each failure means. With
`Client(offline=True)` every request is refused before anything is sent.
"""

from __future__ import annotations

import email.utils
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from medlord_bench.errors import ExitCode, MissingError, Stopped, UserError
from medlord_bench.util.version import __version__

if TYPE_CHECKING:
    import httpx

log = logging.getLogger("medlord_bench")
LOCAL = ("127.0.0.1", "::1", "localhost")  # the only hosts without TLS: mirrors behind a tunnel, and tests
REDIRECTS = 5
BUSY = (408, 425, 429, 500, 502, 503, 504)  # the same request may succeed later
LONGEST_WAIT_S = 900.0  # of a Retry-After; a server that asks for more gets an error instead
LONGEST_BACKOFF_S = 60.0
SMALL_BYTES = 2**24  # of an answer that is read whole: a record, a listing


class FetchError(UserError):
    """A file that could not be fetched (exit code 1). What is complete is kept; the same command goes on."""

    code = ExitCode.FAILED


class Retry(Exception):
    """The request may succeed if it is repeated. wait_s: as the server asks, None if it does not say."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


@dataclass
class Client:
    """Sends requests, and repeats those that may succeed.

    tries: requests in a row that bring nothing, before it gives up. sleep, stop: replaced in tests; `stop` is asked
    while waiting and between pieces. timeout_s: without a byte. moved: bytes of files that came over the network.
    """

    offline: bool = False
    tries: int = 6
    timeout_s: float = 60.0
    sleep: Callable[[float], None] = time.sleep
    stop: Callable[[], bool] = lambda: False
    moved: int = 0
    _http: Any = field(default=None, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    @property
    def http(self) -> httpx.Client:
        import httpx

        if self._http is None:
            # identity: a length and a hash are those of the file, not of a compressed transfer
            headers = {"User-Agent": f"medlord-bench/{__version__}", "Accept-Encoding": "identity"}
            timeout = httpx.Timeout(self.timeout_s, connect=min(30.0, self.timeout_s))
            self._http = httpx.Client(headers=headers, timeout=timeout, follow_redirects=False)
        return self._http  # type: ignore[no-any-return]

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    @contextmanager
    def open(self, url: str, headers: Mapping[str, str] | None = None) -> Iterator[httpx.Response]:
        """One GET, redirects followed. Its body is not read yet.

        Raises `Retry` for a failure that may pass, and `FetchError` or `MissingError` for one that will not.
        """
        import httpx

        self.check_stop()
        try:
            response = self._sent(url, headers or {})
        except (httpx.TransportError, OSError) as error:
            raise Retry(words_of(error)) from error
        try:
            check_status(response, url)
            yield response
        except httpx.TransportError as error:  # while the body is read
            raise Retry(words_of(error)) from error
        finally:
            response.close()

    def _sent(self, url: str, headers: Mapping[str, str]) -> httpx.Response:
        here, local = url, urlsplit(url).hostname in LOCAL
        for _ in range(REDIRECTS + 1):
            self.check_allowed(here, local)
            response = self.http.send(self.http.build_request("GET", here, headers=dict(headers)), stream=True)
            if response.status_code not in (301, 302, 303, 307, 308):
                return response
            response.close()
            here = urljoin(here, response.headers.get("Location", ""))
        raise FetchError(f"{url}: more than {REDIRECTS} redirects, the last one to {here}; open the page in a browser")

    def check_allowed(self, url: str, local: bool) -> None:
        """Raises `MissingError` offline, and `FetchError` for an address that is not https.

        local: whether the first address was of this machine: no server elsewhere may lead to one.
        """
        if self.offline:
            raise MissingError(f"{url}: --offline forbids network calls; fetch it on a machine with a network")
        parts = urlsplit(url)
        here = parts.hostname in LOCAL
        if (local and here and parts.scheme == "http") or (parts.scheme == "https" and (local or not here)):
            return
        raise FetchError(f"{url}: expected an https address; the server sends elsewhere: open the page in a browser")

    def count(self, piece: bytes) -> None:
        """Take note of a piece of a file; ends the work if a stop was requested."""
        self.check_stop()
        with self._lock:
            self.moved += len(piece)

    def check_stop(self) -> None:
        if self.stop():
            raise Stopped("fetching stopped; what was fetched is kept")

    def pause(self, seconds: float) -> None:
        """Wait; ends early if a stop was requested."""
        while seconds > 0:
            self.check_stop()
            self.sleep(min(seconds, 1.0))
            seconds -= 1.0

    def read(self, url: str) -> bytes:
        """A small answer, whole. Raises as `open`, and `FetchError` after `tries` failures."""
        for attempt in range(self.tries):
            try:
                with self.open(url) as response:
                    content = b""
                    for piece in response.iter_raw():
                        content += piece
                        if len(content) > SMALL_BYTES:
                            raise FetchError(f"{url}: more than {SMALL_BYTES} bytes; expected a record or a list")
                return content
            except Retry as failure:
                self.wait(url, failure, attempt)
        raise AssertionError("`wait` raises at the last attempt")

    def wait(self, url: str, failure: Retry, attempt: int) -> None:
        """Wait before the next attempt. Raises `FetchError` after the last one, or if the server asks for too long."""
        if attempt + 1 >= self.tries:
            raise FetchError(
                f"{url}: {failure}; gave up after {self.tries} attempts: give the same command later, it goes on"
            ) from failure
        seconds = min(2.0**attempt, LONGEST_BACKOFF_S) if failure.wait_s is None else failure.wait_s
        if seconds > LONGEST_WAIT_S:
            raise FetchError(
                f"{url}: {failure}; the server asks to wait {seconds / 60:.0f} minutes: give the same command then"
            ) from failure
        log.info("%s: %s; next attempt in %.0f s", url, failure, seconds)
        self.pause(seconds)


def check_status(response: httpx.Response, url: str) -> None:
    """Raises `Retry` for a server that is busy, `MissingError` for a file that is not there or not for everybody."""
    status = response.status_code
    if status in (200, 206, 416):
        return
    if status in BUSY:
        raise Retry(f"the server answers {status}", retry_after(response.headers.get("Retry-After")))
    if status in (404, 410):
        raise MissingError(
            f"{url}: the server answers {status}: the file or record was moved or removed; look for its new address on "
            "the data set's page, and report it so that the bench's list can be corrected"
        )
    if status in (401, 403):
        raise MissingError(
            f"{url}: the server answers {status}: it asks for an account or an accepted licence; fetch the file in a "
            "browser and put it into the folder"
        )
    raise FetchError(f"{url}: the server answers {status}; expected the file: try again later")


def retry_after(text: str | None, now: float | None = None) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3): a number, or a date. None if there is none that is valid."""
    if not text:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, date.timestamp() - (time.time() if now is None else now))


def words_of(error: Exception) -> str:
    """The first line of a failure of the connection."""
    text = (str(error).strip().splitlines() or [""])[0]
    return f"the connection failed: {text or type(error).__name__}"
