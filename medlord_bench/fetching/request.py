"""What one fetch of a data set needs to know, and what it writes down: `fetch.json` in the target folder."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pydantic import ValidationError

from medlord_bench.contracts import FrozenConfig
from medlord_bench.errors import UserError
from medlord_bench.fetching.http import Client
from medlord_bench.fetching.records import Endpoints
from medlord_bench.util.files import write_json
from medlord_bench.util.progress import Progress, ProgressTask, SilentProgress

Item = TypeVar("Item")
RECORD = "fetch.json"


@dataclass
class Request:
    """A fetch of a data set into `folder`. cases: how many, None: all. jobs: files at once."""

    folder: Path
    client: Client
    cases: int | None = None
    jobs: int = 4
    keep_archives: bool = False
    endpoints: Endpoints = field(default_factory=Endpoints)
    progress: Progress = field(default_factory=SilentProgress)


@dataclass(frozen=True)
class Fetched:
    """What a fetch did. moved: bytes over the network. of: bytes of the archives, where only members were fetched."""

    cases: int
    files: int
    moved: int
    of: int | None = None


class Unpacked(FrozenConfig):
    """An archive or series whose files are all in the folder.

    folders: each folder below the data folder with how many of its files there are. sha256, md5: of the archive; of a series,
    sha256 of the sorted sha256 of its files.
    """

    url: str
    bytes: int
    folders: dict[str, int]
    sha256: str | None = None
    md5: str | None = None

    @property
    def files(self) -> int:
        return sum(self.folders.values())


def counted(targets: Iterable[str]) -> dict[str, int]:
    """Folder -> number of targets in it."""
    return dict(Counter(str(PurePosixPath(target).parent) for target in targets))


class FetchRecord(FrozenConfig):
    """`fetch.json`: the licence as it was accepted, and what was unpacked: archive or series -> facts."""

    dataset: str
    licence: str
    accepted: str
    unpacked: dict[str, Unpacked] = {}


class Journal:
    """`fetch.json` while several threads write to it."""

    def __init__(self, folder: Path, dataset: str, licence: str) -> None:
        self.path, self.lock = folder / RECORD, threading.Lock()
        before = read_record(folder)
        if before is not None and before.dataset != dataset:
            raise UserError(
                f"{self.path}: the folder holds {before.dataset}; fetch {dataset} into another folder with --to"
            )
        date = datetime.now(UTC).isoformat(timespec="seconds")
        unpacked = {} if before is None else before.unpacked
        self.record = FetchRecord(dataset=dataset, licence=licence, accepted=date, unpacked=unpacked)
        self._write()

    def add(self, name: str, facts: Unpacked) -> None:
        with self.lock:
            self.record = self.record.model_copy(update={"unpacked": {**self.record.unpacked, name: facts}})
            self._write()

    def has(self, name: str) -> bool:
        """Whether it was unpacked, and its files are still there, by their number."""
        known = self.record.unpacked.get(name)
        return known is not None and all(self._files(folder) >= count for folder, count in known.folders.items())

    def _files(self, folder: str) -> int:
        place = self.path.parent / folder
        return sum(entry.is_file() for entry in os.scandir(place)) if place.is_dir() else 0

    def _write(self) -> None:
        write_json(self.path, self.record.model_dump(mode="json"))


def read_record(folder: Path) -> FetchRecord | None:
    """The record of a folder; None if there is none."""
    path = folder / RECORD
    if not path.exists():
        return None
    try:
        return FetchRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError):
        raise UserError(f"{path}: not a record of a fetch; delete it, and what is there is checked again") from None


class Meter:
    """Bytes from several threads to one progress task, which counts MiB."""

    def __init__(self, task: ProgressTask) -> None:
        self.task, self.lock, self.bytes, self.shown = task, threading.Lock(), 0, 0

    def __call__(self, count: int) -> None:
        with self.lock:
            self.bytes += count
            whole = self.bytes // 2**20
            if whole != self.shown:
                self.task.advance(whole - self.shown)
                self.shown = whole


def in_parallel(work: Callable[[Item], None], items: Iterable[Item], jobs: int, client: Client) -> None:
    """`work` on each item in threads. At the first failure the others stop between two pieces, and it is raised."""
    failed = threading.Event()
    before = client.stop
    client.stop = lambda: before() or failed.is_set()
    try:
        with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
            futures = [pool.submit(work, item) for item in items]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            first = next((one.exception() for one in done if one.exception() is not None), None)
            if first is not None:
                failed.set()
                for future in futures:
                    future.cancel()
                raise first
    finally:
        client.stop = before
