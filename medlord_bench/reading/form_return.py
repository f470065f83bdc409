"""`form.csv` filled by hand: a row for each case, with its code, one column for each question, and a comment."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from medlord_bench.errors import UserError

from .answers import CANNOT, MAX_WORDS, Answer, check_answer
from .pack import Pack


def read_form(path: Path, text: str, packs: Sequence[Pack]) -> tuple[Pack, tuple[Answer, ...]]:
    """The pack that a form is of, by its codes, and its answers. A row without any answer is a case that was not read.

    Commas or semicolons. Raises `UserError` naming file, line and column.
    """
    head = text.partition("\n")[0]
    try:
        table = csv.DictReader(
            io.StringIO(text), delimiter=";" if head.count(";") > head.count(",") else ",", strict=True
        )
        rows = [(table.line_num, row) for row in table]
    except csv.Error as error:
        raise UserError(f"{path}: not a table ({error}); fill in form.csv of the pack") from None
    if not rows:
        raise UserError(f"{path}: no rows; fill in form.csv of the pack")
    pack = _pack_of(path, [row.get("code") or "" for _, row in rows], packs)
    names = [one.name for one in pack.rubric.questions]
    columns = [name for name in table.fieldnames or () if name and name != "item"]  # a place that the form prints
    if pack.design != "ratings" or sorted(columns) != sorted(["code", *names, "comment"]):
        raise UserError(f"{path}, line 1: columns {columns!r:.200}, expected code, {', '.join(names)}, comment")
    found: dict[int, Answer] = {}
    for number, row in rows:
        answer = _answer(f"{path}, line {number}", row, pack, names)
        if answer is not None and found.setdefault(answer.item, answer) is not answer:
            _wrong(f"{path}, line {number}", f"column code: {answer.codes[0]} is answered twice, expected one row")
    return pack, tuple(found.values())


def _pack_of(path: Path, codes: Sequence[str], packs: Sequence[Pack]) -> Pack:
    for pack in packs:
        if set(codes) & set(pack.codes):
            return pack
    raise UserError(
        f"{path}: column code: {codes[0]!r:.40} is of none of the packs; give --pack the pack that was read"
    )


def _answer(where: str, row: dict[str | None, str], pack: Pack, names: Sequence[str]) -> Answer | None:
    if None in row:
        _wrong(where, "more cells than columns; put a comment with commas between quotes")
    code = (row.get("code") or "").strip()
    if (code,) not in pack.items:
        _wrong(where, f"column code: {code!r:.40}, expected a code of the pack")
    given = {name: (row.get(name) or "").strip() for name in names}
    if not any(given.values()):
        return None
    empty = next((name for name in names if not given[name]), None)
    if empty is not None:
        _wrong(where, f"column {empty}: empty, expected a level, or '{CANNOT}' where that is offered")
    bad = next((name for name in names if not (given[name].isdecimal() or given[name] == CANNOT)), None)
    if bad is not None:
        _wrong(where, f"column {bad}: {given[bad]!r:.40}, expected a whole number")
    levels = {name: CANNOT if text == CANNOT else int(text[:9]) for name, text in given.items()}
    comment = row.get("comment") or ""
    if len(comment) > MAX_WORDS:
        _wrong(where, f"column comment: {len(comment)} letters, expected at most {MAX_WORDS}")
    answer = Answer(item=pack.items.index((code,)), codes=(code,), answers=levels, comment=comment)
    check_answer(answer, pack, where)
    return answer


def _wrong(where: str, what: str) -> NoReturn:
    raise UserError(f"{where}: {what}; correct the form")
