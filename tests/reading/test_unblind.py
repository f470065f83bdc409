"""Lock and unblinding: answers first, then the key; nothing changed is accepted."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from medlord_bench.cli.reading import reading
from medlord_bench.errors import MissingError, UserError
from medlord_bench.reading.analysis import analyse
from medlord_bench.reading.key import Key, read_key, write_key
from medlord_bench.reading.lock import lock, read_lock
from medlord_bench.reading.pack import read_pack
from medlord_bench.reading.serve import returns_of as returns_place
from medlord_bench.reading.study import Study
from medlord_bench.reading.unblind import read_unblinded, unblind
from medlord_bench.reading.withdrawal import withdraw
from tests.reading.study_data import exported, read_by_all

QUALITY = {"real": 1.0, "model": -1.0}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    made = exported(tmp_path, ("real", "model"), n=3, repeats=2)
    read_by_all(made, QUALITY)
    return made


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_every_answer_gets_its_source(study: Study) -> None:
    made = lock(study)
    assert not made.partial and set(made.returns) == {"R1", "R2"} and lock(study) == made
    joined = unblind(study, study.key)
    assert read_unblinded(study) == joined and joined.commitment == read_key(study.key).commitment()
    key = read_key(study.key)
    with open(study.analysis / "answers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 8 * 8  # readers, items with repeats, questions
    for row in rows:
        entry = key.of_reader(row["reader"])[row["code"]]
        assert (row["source"], row["volume"], int(row["repeat"])) == (entry.source, entry.item, entry.repeat)
    answer = json.loads((study.returns / "R1.jsonl").read_text().splitlines()[1])
    shown = {row["question"]: int(row["level"]) for row in rows if row["code"] == answer["codes"][0]}
    assert shown == answer["answers"]


def test_html_and_formulas_in_a_comment_stay_text(study: Study) -> None:
    edited(
        study.returns / "R1.jsonl", '"comment": ""', '"comment": "=HYPERLINK(\\"http://x\\")<script>alert(1)</script>"'
    )
    lock(study)
    unblind(study, study.key)
    text = (study.analysis / "comments.csv").read_text()
    assert "'=HYPERLINK" in text and "<script>" in text
    from medlord_bench.reading.analysis import analyse

    analyse(study)
    for name in ("summary.md", "checklist.md", "marks.csv"):
        assert "script" not in (study.analysis / name).read_text()


def test_an_unlocked_study_is_refused(study: Study) -> None:
    with pytest.raises(UserError, match=r"lock.json: not found; lock the returns first"):
        unblind(study, study.key)
    with pytest.raises(UserError, match=r"unblinded.json: not found; first: .* unblind"):
        read_unblinded(study)


def test_a_return_changed_after_the_lock_is_refused(study: Study) -> None:
    lock(study)
    path = study.returns / "R1.jsonl"
    edited(path, '"realism": ', '"realism":  ')
    for call in (lambda: unblind(study, study.key), lambda: lock(study)):
        with pytest.raises(UserError, match=r"R1.jsonl: changed since it was locked"):
            call()
    path.unlink()
    with pytest.raises(UserError, match=r"R1.jsonl: not found, but locked"):
        unblind(study, study.key)


def test_a_return_after_the_lock_is_refused(study: Study) -> None:
    content = (study.returns / "R2.jsonl").read_bytes()
    (study.returns / "R2.jsonl").unlink()
    with pytest.raises(UserError, match="no return of R2; wait for it, or lock with --partial"):
        lock(study)
    made = lock(study, partial=True)
    assert made.partial and made.absent == ("R2",)
    assert unblind(study, study.key).partial
    (study.returns / "R2.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=r"R2.jsonl: came after the lock"):
        unblind(study, study.key)


def test_an_incomplete_return_is_locked_as_partial_only(study: Study) -> None:
    path = study.returns / "R1.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:5]) + "\n")
    with pytest.raises(UserError, match=r"R1.jsonl: case 5 .*or lock with --partial"):
        lock(study)
    assert lock(study, partial=True).returns["R1"].answered == 4
    assert unblind(study, study.key).readers[0].answered == 4


def swapped(key: Key) -> Key:
    entries = [one.model_copy(update={"source": "model" if one.source == "real" else "real"}) for one in key.entries]
    return key.model_copy(update={"entries": tuple(entries)})


def test_a_return_of_another_reader_by_its_name_is_refused(study: Study) -> None:
    (study.returns / "R1.jsonl").rename(study.returns / "R9.jsonl")
    with pytest.raises(UserError, match=r"R9.jsonl: is the return of reader R1; expected the name R1.jsonl"):
        lock(study)


def test_a_changed_key_is_refused(study: Study, tmp_path: Path) -> None:
    lock(study)
    key = read_key(study.key)
    for number, other in enumerate((swapped(key), key.model_copy(update={"nonce": "0" * 64}))):
        path = write_key(tmp_path / str(number), other)
        with pytest.raises(UserError, match="its commitment is .*the key was changed, or is of another study"):
            unblind(study, path)
    with pytest.raises(MissingError, match="give it with --key"):
        unblind(study, tmp_path / "none.json")
    assert not study.analysis.exists()


def test_a_changed_pack_or_protocol_is_refused(study: Study) -> None:
    lock(study)
    edited(study.protocol, "n: 3", "n: 2")
    with pytest.raises(UserError, match=r"protocol.yaml: changed since the export"):
        unblind(study, study.key)
    edited(study.protocol, "n: 2", "n: 3")
    edited(study.pack("R1") / "pack.json", "Not recognisable as CT", "Superb CT")
    with pytest.raises(UserError, match="of another state of this pack"):
        unblind(study, study.key)


def test_an_encrypted_key_opens_with_its_identity(study: Study, tmp_path: Path) -> None:
    pyrage = pytest.importorskip("pyrage")
    lock(study)
    identity = pyrage.x25519.Identity.generate()
    path = write_key(tmp_path / "sealed", read_key(study.key), str(identity.to_public()))
    (tmp_path / "identity").write_text(f"{identity}\n")
    assert unblind(study, path, tmp_path / "identity").commitment == read_key(study.key).commitment()


def test_folders_without_packs_or_returns_are_named(study: Study, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="expected the packs of a study"):
        lock(Study(tmp_path / "none"))
    for path in study.returns.iterdir():
        path.unlink()
    with pytest.raises(MissingError, match="no returns"):
        lock(study)


def test_after_unblinding_there_is_no_new_lock_and_no_more_reading(study: Study) -> None:
    lock(study)
    unblind(study, study.key)
    with pytest.raises(UserError, match="the returns are locked"):
        returns_place(study.pack("R1"), read_pack(study.pack("R1")), None)
    (study.returns / "lock.json").unlink()
    (study.analysis / "unblinded.json").unlink()
    with pytest.raises(UserError, match=r"opened.json: the key was opened already"):
        lock(study)


def test_unblinded_answers_that_were_edited_are_refused(study: Study) -> None:
    lock(study)
    unblind(study, study.key)
    path = study.analysis / "unblinded.json"
    content = path.read_text()
    row = json.loads(content)
    row["rows"][0]["level"] = 1 + row["rows"][0]["level"] % 2
    path.write_text(json.dumps(row))
    with pytest.raises(UserError, match=r"unblinded.json: changed since the key was opened; make it again: .* unblind"):
        analyse(study)
    path.write_text(content)
    edited(study.returns / "R1.jsonl", '"realism": ', '"realism":  ')
    with pytest.raises(UserError, match=r"R1.jsonl: changed since it was locked"):
        analyse(study)
    edited(study.returns / "R1.jsonl", '"realism":  ', '"realism": ')
    edited(study.returns / "lock.json", '"partial": false', '"partial": true')
    with pytest.raises(UserError, match=r"unblinded.json: of another lock"):
        analyse(study)
    edited(study.returns / "lock.json", '"partial": true', '"partial": false')
    (study.returns / "opened.json").unlink()
    with pytest.raises(UserError, match=r"opened.json: not found"):
        analyse(study)


def test_the_hash_of_the_lock_is_printed_and_on_the_page(study: Study) -> None:
    done = CliRunner().invoke(reading, ["lock", str(study.root)])
    sha = hashlib.sha256((study.returns / "lock.json").read_bytes()).hexdigest()
    assert done.exit_code == 0 and f"sha256 of lock.json: {sha}" in done.output
    unblind(study, study.key)
    analyse(study)
    assert sha in (study.analysis / "summary.md").read_text()


@pytest.mark.parametrize("delete", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_a_reader_withdraws_before_or_after_unblinding(study: Study, late: bool, delete: bool) -> None:
    lock(study)
    first = (study.returns / "lock.json").read_bytes()
    if late:
        unblind(study, study.key)
        analyse(study)
    options = ["--withdraw", "R2", *(["--delete"] if delete else [])]
    done = CliRunner().invoke(reading, ["lock", str(study.root), *options])
    assert done.exit_code == 0 and "reader R2 withdrew" in done.output
    assert (study.returns / "R2.jsonl").exists() != delete
    assert not study.analysis.exists() or list(study.analysis.iterdir()) == []
    made = read_lock(study)
    (record,) = made.withdrawn
    assert (record.reader, record.unblinded) == ("R2", late) and set(made.returns) == {"R1"}
    whole = made.model_copy(update={"returns": {**made.returns, "R2": record.entry}, "withdrawn": ()})
    text = json.dumps(whole.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"
    assert text.encode() == first and record.lock_sha256 == hashlib.sha256(first).hexdigest()
    with pytest.raises(UserError, match=r"not found; first: .* unblind"):
        analyse(study)
    joined = unblind(study, study.key)
    assert {one.reader for one in joined.readers} == {one.reader for one in joined.rows} == {"R1"}
    analyse(study)
    page = (study.analysis / "summary.md").read_text()
    assert f"Reader R2 withdrew on {record.date:%Y-%m-%d}, {'after' if late else 'before'} the key was opened" in page
    assert "R2: withdrew" in (study.analysis / "checklist.md").read_text()
    for path in study.analysis.glob("*.csv"):
        assert "R2" not in path.read_text()


def test_a_withdrawal_that_cannot_be_is_named(study: Study) -> None:
    with pytest.raises(UserError, match="lock the returns first"):
        withdraw(study, "R1")
    lock(study)
    with pytest.raises(UserError, match="reader 'R9' has no return in the lock; it has R1, R2"):
        withdraw(study, "R9")
    withdraw(study, "R1")
    with pytest.raises(UserError, match="reader 'R1' withdrew already"):
        withdraw(study, "R1")
    withdraw(study, "R2")
    with pytest.raises(UserError, match="every reader withdrew"):
        unblind(study, study.key)
    for options, words in ((["--delete"], "needs --withdraw"), (["--withdraw", "R1", "--partial"], "remove --partial")):
        done = CliRunner().invoke(reading, ["lock", str(study.root), *options])
        assert done.exit_code and words in str(done.exception)
