"""The answers of one reader, as they are given: one file of JSON lines that only grows."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError

from medlord_bench.contracts import FrozenConfig
from medlord_bench.errors import UserError
from medlord_bench.util.documents import parse_json
from medlord_bench.util.version import __version__

from .answers import MAX_MS, Answer, check_answer
from .pack import Pack
from .rubric import Question

try:
    import fcntl
except ImportError:  # not on this system: then two servers may write one file
    fcntl = None  # type: ignore[assignment]

Whole = Annotated[int, Field(ge=0)]
Model = TypeVar("Model", bound=FrozenConfig)


class Refused(Exception):
    """An answer that is not taken. reason: `locked`, `order`, `begun` or `invalid`; the reader's page has words for each."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Screen(FrozenConfig):
    width: Whole
    height: Whole
    pixel_ratio: float


class DisplayCheck(FrozenConfig):
    """passed: whether the reader found every patch that differs little from its surrounding."""

    passed: bool


class Beginning(FrozenConfig):
    """What the page says of itself before the first case."""

    screen: Screen
    display_check: DisplayCheck


def asked(pack: Pack) -> list[Question]:
    """The questions of an item: of a pair, how sure the reader is of the choice; else all of the rubric."""
    return [one for one in pack.rubric.questions if pack.design == "ratings" or one.kind == "confidence"]


class AnswerLog:
    """`READER.jsonl` of one pack: a line on the pack, then a line for each item, practice first. Every line is on the
    disk before it is said to be saved.

    A last line that is incomplete, after a kill or a power cut, is moved to `READER.jsonl.incomplete` (`repaired`): its
    answer was never said to be saved. Raises `UserError` for a file of another pack, one that is not JSON lines, and one that
    another process writes.
    """

    def __init__(self, path: Path, pack: Pack) -> None:
        self.path, self.pack, self.repaired = path, pack, False
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            self._only_one()
            self.lines = self._read()
            if self.lines:
                self._same_pack()
                self._finish()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._handle)

    def open_item(self) -> tuple[bool, int] | None:
        """(practice, item) of the next item to be read; None after the last."""
        done = {(line["practice"], line["item"]) for line in self.lines if "item" in line}
        order = [(True, i) for i in range(len(self.pack.practice))] + [(False, i) for i in range(len(self.pack.items))]
        return next((one for one in order if one not in done), None)

    def begin(self, content: bytes) -> None:
        """The first line. content: JSON of a `Beginning`. Raises `Refused`, `OSError` if it cannot be saved."""
        given = _parsed(Beginning, content)
        with self._lock:
            if self.lines:
                raise Refused("begun", "the reading has begun already")
            pack = self.pack
            self._append(
                {
                    "schema_version": 1,
                    "pack": pack.id,
                    "pack_sha256": pack.digest(),
                    "reader": pack.reader,
                    "started": _now(),
                    "reader_version": __version__,
                    **given.model_dump(mode="json"),
                }
            )

    def answer(self, content: bytes) -> None:
        """The next line. content: JSON of an `Answer`. Raises `Refused`, `OSError` if it cannot be saved."""
        given = _parsed(Answer, content)
        with self._lock:
            if not self.lines:
                raise Refused("order", "an answer before the reading has begun")
            place = given.practice, given.item
            if any((line.get("practice"), line.get("item")) == place for line in self.lines):
                raise Refused("locked", f"case {given.item + 1} is answered already; an answer is final")
            if place != self.open_item():
                raise Refused("order", f"case {given.item + 1} is not the next one")
            self._complete(given)
            self._append({**given.model_dump(mode="json"), "ms": min(round(given.ms or 0), MAX_MS), "answered": _now()})
            self._finish()

    def _complete(self, given: Answer) -> None:
        """The page asks more than a return needs: all of a practice item too, and how sure the choice of a pair is."""
        pack = self.pack
        try:
            check_answer(given, pack, f"case {given.item + 1}")
        except UserError as error:
            raise Refused("invalid", str(error)) from None
        lacking = [one.name for one in asked(pack) if one.name not in given.answers]
        lacking += ["choice"] * (given.choice is None and pack.design == "pairs") + ["ms"] * (given.ms is None)
        if lacking:
            raise Refused("invalid", f"case {given.item + 1}: {lacking[0]} is missing")

    def _finish(self) -> None:
        if self.open_item() is None and "finished" not in self.lines[-1]:
            self._append({"finished": _now()})

    def _append(self, line: Mapping[str, Any]) -> None:
        """Write and sync a line, or leave the file as it was and raise `OSError`."""
        content = (json.dumps(line, ensure_ascii=False) + "\n").encode()
        size = os.fstat(self._handle).st_size
        try:
            self._write(content)
        except OSError:
            os.ftruncate(self._handle, size)
            raise
        self.lines.append(dict(line))

    def _write(self, content: bytes) -> None:
        written = 0
        while written < len(content):
            written += os.write(self._handle, content[written:])
        os.fsync(self._handle)

    def _only_one(self) -> None:
        if fcntl is not None:
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{self.path}: another `reading serve` is writing to it; use that page, or stop that command first"
                ) from None

    def _read(self) -> list[dict[str, Any]]:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            aside = self.path.with_name(f"{self.path.name}.incomplete")
            with open(aside, "ab") as file:
                file.write(content[whole:] + b"\n")
                os.fsync(file.fileno())
            os.ftruncate(self._handle, whole)
            os.fsync(self._handle)
            self.repaired = True
        lines = []
        for number, text in enumerate(content[:whole].splitlines(), 1):
            try:
                line = parse_json(text)
            except ValueError:
                line = None
            if not isinstance(line, dict) or ("item" in line and "practice" not in line):
                raise UserError(f"{self.path}: line {number} is not an answer; the file was changed: restore it")
            lines.append(line)
        return lines

    def _same_pack(self) -> None:
        first = self.lines[0]
        if first.get("pack_sha256") != self.pack.digest():
            raise UserError(
                f"{self.path}: has the answers to another pack ({first.get('pack')}), expected {self.pack.id}; give another "
                "--out"
            )


def _parsed(kind: type[Model], content: bytes) -> Model:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Refused("invalid", f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
