"""Answers are saved one by one, are final, and survive a kill and a full disk."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from medlord_bench.errors import UserError
from medlord_bench.reading.answer_log import AnswerLog, Refused, asked
from medlord_bench.reading.pack import Pack
from tests.reading.pack_data import write_pack

BEGIN = json.dumps(
    {"screen": {"width": 1280, "height": 800, "pixel_ratio": 1.5}, "display_check": {"passed": True}}
).encode()


def answer(pack: Pack, item: int = 0, practice: bool = False, **changes: Any) -> bytes:
    codes = (pack.practice if practice else pack.items)[item]
    given = {
        "item": item,
        "codes": codes,
        "practice": practice,
        "answers": {question.name: 2 for question in asked(pack)},
        "choice": "left" if pack.design == "pairs" else None,
        "marks": [{"code": codes[0], "plane": "axial", "point": [1, 2, 3], "cue": "bone", "words": "ü"}],
        "comment": "",
        "ms": 1234,
        "windows": ["lung"],
        **changes,
    }
    return json.dumps(given).encode()


def reason(log: AnswerLog, content: bytes) -> str:
    with pytest.raises(Refused) as refused:
        log.answer(content)
    return refused.value.reason


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return write_pack(tmp_path / "pack", practice=False)


@pytest.fixture
def log(tmp_path: Path, pack: Pack) -> AnswerLog:
    found = AnswerLog(tmp_path / "R1.jsonl", pack)
    found.begin(BEGIN)
    return found


def test_a_whole_reading_is_a_line_on_the_pack_a_line_for_each_item_and_an_end(log: AnswerLog, pack: Pack) -> None:
    for item in range(3):
        log.answer(answer(pack, item))
    first, *answers, last = lines(log.path)
    assert first["pack"] == pack.id and first["pack_sha256"] == pack.digest() and first["reader"] == "R1"
    assert first["schema_version"] == 1 and first["display_check"] == {"passed": True}
    assert first["screen"]["pixel_ratio"] == 1.5
    assert [one["item"] for one in answers] == [0, 1, 2] and answers[0]["codes"] == list(pack.items[0])
    assert answers[0]["marks"][0]["point"] == [1, 2, 3] and answers[0]["ms"] == 1234
    assert list(last) == ["finished"]
    assert log.open_item() is None
    assert log.path.stat().st_mode & 0o777 == 0o600


def test_an_answer_is_final_and_items_come_in_order(log: AnswerLog, pack: Pack) -> None:
    assert reason(log, answer(pack, 1)) == "order"
    log.answer(answer(pack, 0))
    assert reason(log, answer(pack, 0, ms=1)) == "locked"
    with pytest.raises(Refused, match="begun already"):
        log.begin(BEGIN)
    assert len(lines(log.path)) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"answers": {}},
        {"answers": {"realism": 6}},
        {"codes": ["AAAAAA"]},
        {"choice": "left"},
        {"marks": [{"code": "AAAAAA", "plane": "axial", "point": [1, 2, 3]}]},
        {"marks": [{"code": "K7Q2MA", "plane": "axial", "point": [1, 2, 24]}]},
        {"marks": [{"code": "K7Q2MA", "plane": "oblique", "point": [1, 2, 3]}]},
        {"comment": "x" * 10_001},
        {"ms": -1},
        {"source": "x"},
    ],
)
def test_an_answer_that_is_incomplete_or_out_of_scale_is_refused(
    log: AnswerLog, pack: Pack, changes: dict[str, Any]
) -> None:
    before = log.path.read_bytes()
    assert reason(log, answer(pack, **changes)) == "invalid"
    assert reason(log, b"{") == "invalid"
    assert log.path.read_bytes() == before


@pytest.mark.parametrize(("question", "taken"), [("anatomy", True), ("realism", False)])
def test_cannot_assess_is_taken_where_it_is_offered(log: AnswerLog, pack: Pack, question: str, taken: bool) -> None:
    given = {one.name: 2 for one in asked(pack)} | {question: "cannot"}
    if taken:
        log.answer(answer(pack, answers=given))
        assert lines(log.path)[-1]["answers"]["anatomy"] == "cannot"
    else:
        assert reason(log, answer(pack, answers=given)) == "invalid"


def test_of_a_pair_the_choice_and_how_sure_are_asked(tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "pack", design="pairs")
    log = AnswerLog(tmp_path / "R1.jsonl", pack)
    log.begin(BEGIN)
    assert [one.name for one in asked(pack)] == ["confidence"]
    assert reason(log, answer(pack, 0)) == "order", "practice comes first"
    assert reason(log, answer(pack, 0, practice=True, choice=None)) == "invalid"
    log.answer(answer(pack, 0, practice=True))
    log.answer(answer(pack, 0, choice="right"))
    assert lines(log.path)[-1]["choice"] == "right"


def test_a_line_that_a_kill_cut_is_moved_aside_and_the_reading_goes_on(log: AnswerLog, pack: Pack) -> None:
    log.answer(answer(pack, 0))
    log.close()
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + b'{"item": 1, "codes"')
    again = AnswerLog(log.path, pack)
    assert again.repaired and again.path.read_bytes() == whole
    assert (log.path.parent / "R1.jsonl.incomplete").read_bytes() == b'{"item": 1, "codes"\n'
    again.answer(answer(pack, 1))
    assert [line.get("item") for line in lines(log.path)] == [None, 0, 1]


def test_the_end_is_written_after_a_kill_between_the_last_answer_and_it(log: AnswerLog, pack: Pack) -> None:
    for item in range(3):
        log.answer(answer(pack, item))
    log.close()
    log.path.write_text("".join(log.path.read_text().splitlines(keepends=True)[:-1]))
    AnswerLog(log.path, pack).close()
    assert list(lines(log.path)[-1]) == ["finished"] and len(lines(log.path)) == 5


def test_a_full_disk_loses_nothing_that_was_answered(
    log: AnswerLog, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.answer(answer(pack, 0))
    before, write = log.path.read_bytes(), os.write

    def full(handle: int, content: bytes) -> int:
        if len(content) > 20:  # a part still fits
            return write(handle, content[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("medlord_bench.reading.answer_log.os.write", full)
        with pytest.raises(OSError, match="No space"):
            log.answer(answer(pack, 1))
    assert log.path.read_bytes() == before
    log.answer(answer(pack, 1))
    assert [line.get("item") for line in lines(log.path)] == [None, 0, 1]


def test_a_file_of_another_pack_or_a_changed_one_or_one_in_use_is_refused(
    tmp_path: Path, log: AnswerLog, pack: Pack
) -> None:
    with pytest.raises(UserError, match="another `reading serve` is writing to it"):
        AnswerLog(log.path, pack)
    log.close()
    with pytest.raises(UserError, match="answers to another pack"):
        AnswerLog(log.path, pack.model_copy(update={"items": pack.items[::-1]}))
    log.path.write_text("[]\n" + log.path.read_text())
    with pytest.raises(UserError, match="line 1 is not an answer"):
        AnswerLog(log.path, pack)
