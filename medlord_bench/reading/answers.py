"""One answer of a reader: its fields, and whether it fits the item, the questions and their scales."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, NoReturn

from pydantic import Field, StrictBool, StrictInt

from medlord_bench.contracts import FrozenConfig
from medlord_bench.errors import UserError

from .pack import Pack

MAX_WORDS, MAX_MARKS = 10_000, 500
MAX_MS = 86_400_000  # a day; a page that was left open so long says nothing of the reading
CANNOT: Literal["cannot"] = "cannot"
UNCHANGED = "return the file as the reader page wrote it"

Level = StrictInt | Literal["cannot"]
Words = Annotated[str, Field(max_length=MAX_WORDS)]


class Mark(FrozenConfig):
    """A place that looks wrong. point: voxel (i, j, k) of the study's grid. cue: of the rubric, or empty."""

    code: str
    plane: Literal["axial", "coronal", "sagittal"]
    point: tuple[StrictInt, StrictInt, StrictInt]
    cue: Words = ""
    words: Words = ""


class Header(FrozenConfig):
    """The first line: whose return it is, and of which pack."""

    schema_version: Literal[1]
    pack: str
    pack_sha256: str
    reader: str
    started: datetime
    reader_version: Words = ""
    screen: Mapping[str, Any] = Field(default_factory=dict)
    display_check: Mapping[str, Any] = Field(default_factory=dict)


class Answer(FrozenConfig):
    """What a reader answered to one item. item: its place in the pack, from 0. choice: of a pair, which looks real."""

    item: StrictInt = Field(ge=0)
    codes: tuple[str, ...] = Field(min_length=1, max_length=2)
    practice: StrictBool = False
    answers: Mapping[str, Level] = Field(default_factory=dict)
    choice: Literal["left", "right"] | None = None
    marks: tuple[Mark, ...] = Field((), max_length=MAX_MARKS)
    comment: Words = ""
    ms: float | None = Field(None, ge=0, allow_inf_nan=False)
    windows: tuple[Words, ...] = ()
    answered: datetime | None = None


class Finished(FrozenConfig):
    """The last line of a complete return."""

    finished: datetime


def check_answer(answer: Answer, pack: Pack, where: str) -> None:
    """Raise `UserError` unless the answer fits the item, the questions and their scales."""
    items = pack.practice if answer.practice else pack.items
    if answer.item >= len(items):
        wrong(where, f"field 'item': {answer.item}, expected 0 to {len(items) - 1}")
    expected = items[answer.item]
    if answer.codes != expected:
        wrong(where, f"field 'codes': {list(answer.codes)!r:.80}, expected {list(expected)} of case {answer.item + 1}")
    for name, level in answer.answers.items():
        question = pack.rubric.question(name)
        if question is None:
            known = ", ".join(one.name for one in pack.rubric.questions)
            wrong(where, f"field 'answers': unknown question {name!r:.80}, expected {known}")
        most = len(question.levels)
        if level == CANNOT and not question.cannot:
            wrong(where, f"field 'answers.{name}': 'cannot', expected 1 to {most}: this question needs an answer")
        if isinstance(level, int) and not 1 <= level <= most:
            wrong(where, f"field 'answers.{name}': {level}, expected 1 to {most}")
    _complete(answer, pack, where)
    for mark in answer.marks:
        if mark.code not in answer.codes:
            wrong(where, f"field 'marks.code': {mark.code!r:.80}, expected {' or '.join(answer.codes)}")
        if not all(0 <= at < size for at, size in zip(mark.point, pack.grid.shape, strict=True)):
            wrong(where, f"field 'marks.point': {list(mark.point)}, expected a voxel of {list(pack.grid.shape)}")
        if mark.cue and mark.cue not in pack.rubric.cues:
            wrong(where, f"field 'marks.cue': {mark.cue!r:.80}, expected {', '.join(pack.rubric.cues) or 'none'}")


def _complete(answer: Answer, pack: Pack, where: str) -> None:
    if answer.practice:
        return
    if pack.design == "pairs":
        if answer.choice is None:
            wrong(where, "field 'choice': none, expected 'left' or 'right'")
        return
    if answer.choice is not None:
        wrong(where, f"field 'choice': {answer.choice!r}, expected none: the study has no pairs")
    lacking = [one.name for one in pack.rubric.questions if one.name not in answer.answers]
    if lacking:
        wrong(where, f"field 'answers.{lacking[0]}': missing, expected an answer to every question")


def wrong(where: str, what: str, advice: str = UNCHANGED) -> NoReturn:
    raise UserError(f"{where}: {what}; {advice}")
