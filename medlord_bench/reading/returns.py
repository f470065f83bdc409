"""What a reader returns: `returns/READER.jsonl`, as the reader page appends it, or `form.csv` filled by hand.

A return is judged without the key. It is data of somebody else: sizes are limited, nothing in it is executed or shown as
anything but text, and every error is one line that names the file, the line, the field and what to do.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from medlord_bench.contracts import FrozenConfig
from medlord_bench.contracts.validation import validate
from medlord_bench.errors import MissingError, UserError

from .answers import CANNOT, MAX_MS, UNCHANGED, Answer, Finished, Header, check_answer, wrong
from .form_return import read_form
from .pack import Pack

MAX_BYTES, MAX_LINE = 64_000_000, 1_000_000
HASTY = 3.0  # seconds; in less nobody scrolls through a volume and answers
CLOCK = timedelta(minutes=2)  # a clock may be set back by so much while somebody reads

Model = TypeVar("Model", bound=FrozenConfig)


@dataclass(frozen=True)
class Return:
    """A valid return, complete or not. answers: of the study's items, in the order given. header: None of a form."""

    path: Path
    sha256: str
    pack: Pack
    header: Header | None
    answers: tuple[Answer, ...]
    finished: bool

    @property
    def reader(self) -> str:
        return self.pack.reader

    @property
    def missing(self) -> list[int]:
        """Items of the pack without an answer."""
        known = {one.item for one in self.answers}
        return [item for item in range(len(self.pack.items)) if item not in known]

    @property
    def seconds(self) -> float | None:
        """Median of an item; None of a form."""
        times = [one.ms / 1000 for one in self.answers if one.ms is not None]
        return statistics.median(times) if times else None

    @property
    def minutes(self) -> float | None:
        times = [one.ms for one in self.answers if one.ms is not None]
        return sum(times) / 60_000 if times else None

    @property
    def hasty(self) -> int:
        """Items answered in less than `HASTY` seconds."""
        return sum(one.ms is not None and one.ms < 1000 * HASTY for one in self.answers)

    def progress(self) -> dict[str, object]:
        """How far the reader is, without the key."""
        done, items, seconds = len(self.answers), len(self.pack.items), self.seconds
        cannot = sum(level == CANNOT for one in self.answers for level in one.answers.values())
        text = f"{self.reader}: {done} of {items} items"
        text += (
            ""
            if seconds is None
            else f", median {seconds:.{0 if seconds >= 10 else 1}f} s an item, {self.minutes:.0f} min in all"
        )
        text += f", {cannot} times 'cannot assess', {sum(len(one.marks) for one in self.answers)} marks"
        text += ", finished" if self.finished else ", not finished"
        text += f"; CAUTION: {self.hasty} items took less than {HASTY:g} s each" if self.hasty else ""
        return {
            "reader": self.reader,
            "answered": done,
            "items": items,
            "finished": self.finished,
            "seconds": seconds,
            "minutes": self.minutes,
            "cannot": cannot,
            "hasty": self.hasty,
            "text": text,
        }

    def incomplete(self) -> str:
        """One line that says what is missing; empty for a complete return."""
        if not self.missing:
            return ""
        first = self.missing[0]
        codes = " and ".join(self.pack.items[first])
        return (
            f"{self.path}: case {first + 1} ({codes}): no answer; {len(self.missing)} of {len(self.pack.items)} cases are "
            "missing: let the reader go on with the same pack"
        )


def read_returns(paths: Sequence[Path], packs: Sequence[Pack]) -> list[Return]:
    """Read and check the returns of one study. Raises `UserError` for the first fault, `MissingError` for no file."""
    found: dict[str, Return] = {}
    for path in paths:
        one = read_return(path, packs)
        other = found.setdefault(one.reader.lower(), one)
        if other is not one:
            raise UserError(
                f"{path}: reader {one.reader} has a return already, {other.path}; keep the file that is right"
            )
    return list(found.values())


def read_return(path: Path, packs: Sequence[Pack]) -> Return:
    """Read and check a return of one of the packs."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: {path.stat().st_size} bytes, expected at most {MAX_BYTES}; {UNCHANGED}")
        content = path.read_bytes()
    except FileNotFoundError:
        raise MissingError(f"{path}: not found; expected a return, such as returns/R1.jsonl") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder; expected a return, such as returns/R1.jsonl") from None
    sha256 = hashlib.sha256(content).hexdigest()
    if path.suffix.lower() == ".csv":
        pack, answers = read_form(path, _text(path, content), packs)
        return Return(path, sha256, pack, None, answers, len(answers) == len(pack.items))
    return _read_lines(path, content, sha256, packs)


def _read_lines(path: Path, content: bytes, sha256: str, packs: Sequence[Pack]) -> Return:
    lines = content.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    else:
        wrong(f"{path}, line {len(lines)}", "cut off; expected a whole line", "let the reader open the pack again")
    if not lines:
        raise UserError(f"{path}: empty; expected a first line with pack and reader; {UNCHANGED}")
    header = _model(Header, _object(path, 1, lines[0]), f"{path}, line 1")
    pack = _pack_of(path, header, packs)
    answers: list[Answer] = []
    seen: dict[tuple[bool, int], int] = {}
    latest, finished = header.started, 0
    for number, line in enumerate(lines[1:], 2):
        where = f"{path}, line {number}"
        data = _object(path, number, line)
        if finished:
            wrong(where, f"is after the last line of the return, {finished}; remove it")
        if "finished" in data:
            _model(Finished, data, where)
            finished = number
            continue
        answer = _model(Answer, data, where)
        check_answer(answer, pack, where)
        latest = _in_time(answer, latest, where)
        before = seen.setdefault((answer.practice, answer.item), number)
        if before != number:
            wrong(where, f"field 'item': {answer.item} is answered already in line {before}; expected one answer")
        if not answer.practice:
            _in_order(answer, answers, where)
            answers.append(answer)
    found = Return(path, sha256, pack, header, tuple(answers), bool(finished))
    if finished and found.missing:
        wrong(f"{path}, line {finished}", f"says finished, but {len(found.missing)} items have no answer")
    return found


def _pack_of(path: Path, header: Header, packs: Sequence[Pack]) -> Pack:
    where = f"{path}, line 1"
    pack = next((one for one in packs if one.id == header.pack), None)
    if pack is None:
        known = ", ".join(one.id for one in packs) or "none"
        wrong(where, f"field 'pack': {header.pack!r:.80}, expected {known}", "give --pack the pack that was read")
    if pack.digest() != header.pack_sha256:
        wrong(where, "field 'pack_sha256': of another state of this pack", "give --pack the pack that was read")
    if pack.reader != header.reader:
        wrong(where, f"field 'reader': {header.reader!r:.80}, expected {pack.reader}")
    return pack


def _in_time(answer: Answer, latest: datetime, where: str) -> datetime:
    """The later of two times. A reader answers one item after the other."""
    if answer.answered is None:
        return latest
    if (answer.answered.tzinfo is None) != (latest.tzinfo is None):
        wrong(where, "field 'answered': expected a time in UTC, as in the first line")
    if answer.answered < latest - CLOCK:
        wrong(where, f"field 'answered': {answer.answered.isoformat()} is before the line above; lines were moved")
    return max(answer.answered, latest)


def _in_order(answer: Answer, before: Sequence[Answer], where: str) -> None:
    """Raise `UserError` unless a case comes after those above it, as the page shows them, and took less than a day."""
    if before and answer.item < before[-1].item:
        wrong(
            where,
            f"case {answer.item + 1} is below case {before[-1].item + 1}, expected the order of the pack; lines were moved",
        )
    if answer.ms is not None and answer.ms > MAX_MS:
        wrong(where, f"field 'ms': {answer.ms:g}, expected at most {MAX_MS} (24 h)")


def _text(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from None


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    where = f"{path}, line {number}"
    if len(line) > MAX_LINE:
        wrong(where, f"{len(line)} bytes, expected at most {MAX_LINE}")
    try:
        data = json.loads(line.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refused)
    except UnicodeDecodeError:
        wrong(where, "not UTF-8")
    except RecursionError:
        wrong(where, "nested too deep, expected the fields of an answer")
    except ValueError as error:
        wrong(where, f"not JSON ({' '.join(str(error).split()):.120})")
    if not isinstance(data, dict):
        wrong(where, f"{type(data).__name__}, expected an object with fields")
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field is given twice")
    return found


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _model(model: type[Model], data: dict[str, Any], where: str) -> Model:
    """Validated; an error is one short line, whatever the content is."""
    try:
        return validate(model, data, where)
    except UserError as error:
        text = "".join(letter if letter.isprintable() else "?" for letter in str(error))
        raise UserError(f"{text[: len(where) + 240]}; {UNCHANGED}") from None
