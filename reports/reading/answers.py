"""The answers of one reader, as they are given: one file of JSON lines that only grows."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, StrictInt, ValidationError

from medlord_bench.contracts import FrozenConfig
from medlord_bench.errors import UserError
from medlord_bench.util.version import __version__

from .pack import Pack
from .rubric import Question

try:
    import fcntl
except ImportError:  # not on this system: then two servers may write one file
    fcntl = None  # type: ignore[assignment]

CANNOT = "cannot"
Whole = Annotated[int, Field(ge=0)]
Model = TypeVar("Model", bound=FrozenConfig)
Short = Annotated[str, Field(max_length=500)]


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


class Mark(FrozenConfig):
    """A place that looks wrong. point: voxel along R, A, S. cue: a name of the rubric's cues, or empty."""

    code: str
    plane: Literal["axial", "coronal", "sagittal"]
    point: tuple[StrictInt, StrictInt, StrictInt]
    cue: str = ""
    words: Short = ""


class ItemAnswer(FrozenConfig):
    """The answer to one item. answers: question -> level from 1, or `cannot`. choice: of a pair, which looks real.

    ms: time that the item was on the screen. windows: those used, `free` for one that the reader set.
    """

    item: StrictInt
    codes: tuple[str, ...]
    practice: bool
    answers: Mapping[str, StrictInt | Literal["cannot"]]
    choice: Literal["left", "right"] | None = None
    marks: tuple[Mark, ...] = Field((), max_length=200)
    comment: str = Field("", max_length=5000)
    ms: Whole
    windows: tuple[Short, ...] = Field((), max_length=50)


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
        """The next line. content: JSON of an `ItemAnswer`. Raises `Refused`, `OSError` if it cannot be saved."""
        given = _parsed(ItemAnswer, content)
        with self._lock:
            if not self.lines:
                raise Refused("order", "an answer before the reading has begun")
            place = given.practice, given.item
            if any((line.get("practice"), line.get("item")) == place for line in self.lines):
                raise Refused("locked", f"item {given.item} is answered already; an answer is final")
            if place != self.open_item():
                raise Refused("order", f"item {given.item} is not the next one")
            self._complete(given)
            self._append({**given.model_dump(mode="json"), "answered": _now()})
            self._finish()

    def _complete(self, given: ItemAnswer) -> None:
        pack = self.pack
        codes = (pack.practice if given.practice else pack.items)[given.item]
        if given.codes != codes:
            raise Refused("invalid", f"codes {given.codes}, expected {codes}")
        questions = asked(pack)
        for question in questions:
            level = given.answers.get(question.name)
            fits = 1 <= level <= len(question.levels) if isinstance(level, int) else level == CANNOT and question.cannot
            if not fits:
                raise Refused("invalid", f"question {question.name}: {level!r} is not one of its answers")
        if len(given.answers) > len(questions):
            raise Refused("invalid", "answers to questions that the rubric does not ask")
        if (given.choice is not None) != (pack.design == "pairs"):
            raise Refused("invalid", f"choice {given.choice!r} in the design {pack.design!r}")
        for mark in given.marks:
            inside = all(0 <= at < size for at, size in zip(mark.point, pack.grid.shape, strict=True))
            if mark.code not in codes or not inside or (mark.cue and mark.cue not in pack.rubric.cues):
                raise Refused("invalid", f"mark {mark.code} {mark.point} {mark.cue!r} is not of this item")

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
                    f"{self.path}: another `reading serve` writes it; read there, or end that one first"
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
                line = json.loads(text)
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
