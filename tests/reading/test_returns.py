"""Returns: what is refused, each in one line that names file, line, field and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medlord_bench.errors import MissingError, UserError
from medlord_bench.reading.forms import write_forms
from medlord_bench.reading.key import read_key
from medlord_bench.reading.pack import Pack, read_pack
from medlord_bench.reading.returns import MAX_LINE, read_return, read_returns
from medlord_bench.reading.study import Study
from tests.reading.study_data import START, answered, exported, header, rated, write_return

Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return exported(tmp_path_factory.mktemp("s"), ("real", "model"), n=3, repeats=0)


@pytest.fixture
def pack(study: Study) -> Pack:
    return read_pack(study.pack("R1"))


@pytest.fixture
def lines(study: Study, pack: Pack) -> Lines:
    entries = read_key(study.key).of_reader("R1")
    quality = {"real": 1.0, "model": 0.0}
    return [header(pack), *rated(pack, entries, quality, 0), {"finished": START.replace(hour=12).isoformat()}]


def test_a_whole_return_is_read(pack: Pack, lines: Lines, tmp_path: Path) -> None:
    practice = {**lines[1], "item": 0, "codes": list(pack.practice[0]), "practice": True}
    found = read_return(write_return(tmp_path / "R1.jsonl", [lines[0], practice, *lines[1:]]), [pack])
    assert found.reader == "R1" and found.finished and not found.missing and not found.incomplete()
    assert len(found.answers) == 6 and found.seconds == pytest.approx(40.0, abs=0.1)
    assert found.progress()["text"] == (
        f"R1: 6 of 6 items, median 40 s an item, 4 min in all, 0 times 'cannot assess', "
        f"{sum(len(one.marks) for one in found.answers)} marks, finished"
    )


def test_answers_that_came_too_fast_are_counted(pack: Pack, lines: Lines, tmp_path: Path) -> None:
    fast = [
        {**line, "ms": ms} if "ms" in line else line
        for line, ms in zip(lines, [0, 77, 2999, 3000, 9e4, 9e4, 80, 0], strict=False)
    ]
    found = read_return(write_return(tmp_path / "R1.jsonl", fast), [pack])
    assert found.hasty == 3 and "CAUTION: 3 items took less than 3 s each" in str(found.progress()["text"])


def test_an_incomplete_return_is_valid_and_says_what_is_missing(pack: Pack, lines: Lines, tmp_path: Path) -> None:
    found = read_return(write_return(tmp_path / "R1.jsonl", lines[:3]), [pack])
    assert found.missing == [2, 3, 4, 5] and not found.finished
    assert f"case 3 ({pack.items[2][0]}): no answer; 4 of 6 cases are missing" in found.incomplete()


def change(line: int, **fields: Any) -> Callable[[Lines], Lines]:
    return lambda lines: [{**one, **fields} if at == line - 1 else one for at, one in enumerate(lines)]


def levels(line: int, **fields: Any) -> Callable[[Lines], Lines]:
    return lambda lines: change(line, answers={**lines[line - 1]["answers"], **fields})(lines)


def mark(**fields: Any) -> Callable[[Lines], Lines]:
    base = {"plane": "axial", "point": [0, 0, 0], "cue": "bone"}
    return lambda lines: change(2, marks=[{"code": lines[1]["codes"][0], **base, **fields}])(lines)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (change(1, pack="OTHERX"), "line 1: field 'pack': 'OTHERX'"),
        (change(1, pack_sha256="0" * 64), "line 1: field 'pack_sha256': of another state"),
        (change(1, reader="R2"), "line 1: field 'reader'"),
        (change(1, schema_version=2), "line 1: field 'schema_version'"),
        (change(2, codes=["AAAAAA"]), "line 2: field 'codes'"),
        (change(2, item=99), "line 2: field 'item': 99, expected 0 to 5"),
        (change(3, item=0), "line 3: field 'codes'"),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], "line 3: field 'item': 0 is answered already in line 2"),
        (lambda lines: [lines[0], lines[6], lines[1]], "line 3: field 'answered'"),
        (
            lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
            "line 3: case 1 is below case 2, expected the order of the pack",
        ),
        (change(2, ms=90_000_000), "line 2: field 'ms': 9e+07, expected at most 86400000"),
        (lambda lines: [*lines[:-2], lines[-1]], "says finished, but 1 items have no answer"),
        (lambda lines: [*lines, lines[1]], "line 9: is after the last line of the return, 8"),
        (lambda lines: lines[1:], "line 1: field 'schema_version'"),
        (levels(2, realism=6), "line 2: field 'answers.realism': 6, expected 1 to 5"),
        (levels(2, realism=0), "expected 1 to 5"),
        (levels(2, realism=True), "line 2: field 'answers.realism"),
        (levels(2, realism=2.5), "line 2: field 'answers.realism"),
        (levels(2, realism="<script>"), "line 2: field 'answers.realism"),
        (levels(2, realism="cannot"), "this question needs an answer"),
        (levels(2, beauty=1), "unknown question 'beauty'"),
        (change(2, answers={}), "field 'answers.realism': missing"),
        (change(2, choice="left"), "field 'choice': 'left', expected none"),
        (change(2, ms=-1), "field 'ms'"),
        (change(2, source="model"), "'source'"),
        (change(2, comment="x" * 10_001), "field 'comment'"),
        (change(2, comment={"a": 1}), "field 'comment'"),
        (mark(code="AAAAAA"), "field 'marks.code'"),
        (mark(point=[0, 0, 8]), "field 'marks.point'"),
        (mark(point=[0, 0, -1]), "field 'marks.point'"),
        (mark(cue="smell"), "field 'marks.cue'"),
        (mark(plane="oblique"), "field 'marks.0.plane'"),
    ],
)
def test_a_wrong_return_is_named_in_one_line(
    edit: Callable[[Lines], Lines], words: str, pack: Pack, lines: Lines, tmp_path: Path
) -> None:
    path = write_return(tmp_path / "R1.jsonl", edit(lines))
    with pytest.raises(UserError) as error:
        read_return(path, [pack])
    text = str(error.value)
    assert words in text and text.startswith(str(path)) and ";" in text
    assert "\n" not in text and len(text) < len(str(path)) + 400


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"{\n", "line 1: not JSON"),
        (b"\xff\xfe{}\n", "line 1: not UTF-8"),
        (b"[]\n", "line 1: list, expected an object"),
        (b"[" * 200_000 + b"\n", "nested too deep"),
        (b'{"a":' * 100_000 + b"\n", "nested too deep"),
        (b'{"a": "' + b"x" * MAX_LINE + b'"}\n', "expected at most 1000000"),
        (b'{"pack": "A", "pack": "B"}\n', "a field is given twice"),
        (b'{"schema_version": NaN}\n', "NaN is no number"),
        (b'{"\\u001b[31mred\\n": 1}\n', "line 1: "),
        (b'{"schema_version": ' + b"9" * 5000 + b"}\n", "line 1: "),
    ],
)
def test_hostile_content_is_named_in_one_line(content: bytes, words: str, pack: Pack, tmp_path: Path) -> None:
    path = tmp_path / "R1.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_return(path, [pack])
    text = str(error.value)
    assert words in text and "\n" not in text and "\x1b" not in text and len(text) < len(str(path)) + 400


def test_a_line_that_was_cut_off_is_named(pack: Pack, lines: Lines, tmp_path: Path) -> None:
    path = write_return(tmp_path / "R1.jsonl", lines[:3])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="line 3: cut off.*let the reader open the pack again"):
        read_return(path, [pack])


def test_two_files_of_one_reader_and_missing_files(pack: Pack, lines: Lines, tmp_path: Path) -> None:
    paths = [write_return(tmp_path / name, lines) for name in ("R1.jsonl", "copy.jsonl")]
    with pytest.raises(UserError, match=r"copy.jsonl: reader R1 has a return already, .*R1.jsonl"):
        read_returns(paths, [pack])
    with pytest.raises(MissingError, match="not found"):
        read_return(tmp_path / "none.jsonl", [pack])
    with pytest.raises(UserError, match="a folder"):
        read_return(tmp_path, [pack])


def test_pairs_need_a_choice(tmp_path: Path) -> None:
    study = exported(tmp_path, ("real", "model"), n=3, design="pairs", pairs=4)
    pack = read_pack(study.pack("R1"))
    good = answered(pack, 0, None, choice="left")
    assert read_return(write_return(tmp_path / "a.jsonl", [header(pack), good]), [pack]).answers[0].choice == "left"
    for choice in (None, "middle"):
        path = write_return(tmp_path / "b.jsonl", [header(pack), {**good, "choice": choice}])
        with pytest.raises(UserError, match="line 2: field 'choice'"):
            read_return(path, [pack])


def form(pack: Pack, rows: dict[str, str], delimiter: str = ",") -> str:
    names = [one.name for one in pack.rubric.questions]
    empty = delimiter.join([""] * len(names))
    lines = [delimiter.join(["code", *names, "comment"])]
    lines += [rows.get(code, f"{code}{delimiter}{empty}{delimiter}") for code in pack.codes]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_form_filled_by_hand_is_a_return(pack: Pack, delimiter: str, tmp_path: Path) -> None:
    path = tmp_path / "R1.csv"
    levels = ["4", "cannot", "3", "3", "3", "5", "2", "4"]
    filled = delimiter.join([pack.codes[1], *levels, '"<b>odd</b>, vessel"'])
    path.write_text("\ufeff" + form(pack, {pack.codes[1]: filled}, delimiter), encoding="utf-8")
    found = read_return(path, [pack])
    assert found.reader == "R1" and found.missing == [0, 2, 3, 4, 5] and found.answers[0].item == 1
    assert found.answers[0].answers["anatomy"] == "cannot" and found.answers[0].comment == "<b>odd</b>, vessel"


def test_the_form_that_the_pack_has_is_a_return(pack: Pack, tmp_path: Path) -> None:
    """It also numbers the items."""
    write_forms(tmp_path, pack)
    head, first, *rest = (tmp_path / "form.csv").read_text(encoding="utf-8-sig").splitlines()
    assert head.startswith("item,code,")
    cells = first.split(",")
    cells[2:10] = ["4"] * 6 + ["2", "4"]
    (tmp_path / "R1.csv").write_text("\n".join([head, ",".join(cells), *rest]) + "\n", encoding="utf-8")
    assert [one.item for one in read_return(tmp_path / "R1.csv", [pack]).answers] == [0]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{code},9,3,3,3,3,5,2,4,", "line 2: field 'answers.realism': 9, expected 1 to 5"),
        ("{code},,3,3,3,3,5,2,4,", "line 2: column realism: empty"),
        ("{code},four,3,3,3,3,5,2,4,", "line 2: column realism: 'four', expected a whole number"),
        ("AAAAAA,4,3,3,3,3,5,2,4,", "line 2: column code: 'AAAAAA'"),
        ("{code},4,3,3,3,3,5,2,4,no,quotes", "line 2: more cells than columns"),
    ],
)
def test_a_wrong_form_is_named(row: str, words: str, pack: Pack, tmp_path: Path) -> None:
    path = tmp_path / "R1.csv"
    path.write_text(form(pack, {pack.codes[0]: row.format(code=pack.codes[0])}))
    with pytest.raises(UserError) as error:
        read_return(path, [pack])
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_form_of_something_else_is_named(pack: Pack, tmp_path: Path) -> None:
    path = tmp_path / "R1.csv"
    for text, words in (
        ("code\n", "no rows"),
        ("a,b\n1,2\n", "of none of the packs"),
        (f"code,comment\n{pack.codes[0]},x\n", "line 1: columns"),
        (
            form(pack, {}).replace(pack.codes[1], pack.codes[0]).replace(",,,,,,,,,", ",4,3,3,3,3,5,2,4,"),
            "answered twice",
        ),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            read_return(path, [pack])
    path.write_bytes(b"code,comment\nAAAAAA,\xff\n")
    with pytest.raises(UserError, match="line 2: not UTF-8"):
        read_return(path, [pack])
