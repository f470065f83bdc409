"""Joins locked answers with the key: `analysis/unblinded.json`, and the same as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from medlord_bench.contracts import FrozenConfig
from medlord_bench.contracts.validation import read_json
from medlord_bench.drawing.files import table
from medlord_bench.errors import UserError
from medlord_bench.util.files import write_json, write_text
from medlord_bench.util.hashing import digest, file_sha256

from .answers import CANNOT, Answer, Mark
from .key import Entry, Key, SourceRecord, read_key
from .lock import (
    OPENED,
    UNBLINDED,
    Lock,
    Opened,
    Withdrawn,
    lock_hash,
    locked_returns,
    packs_of,
    read_lock,
    returns_of,
    unchanged,
)
from .pack import Pack
from .protocol import read_protocol
from .rebuild import StudyGrid
from .returns import Return
from .rubric import Rubric
from .study import Study

FILE = UNBLINDED


class ReaderRecord(FrozenConfig):
    """A reader's part. file, sha256: the locked return. minutes: of all items; None of a form. seconds: median of an item.
    hasty: items answered too fast to be read. display: whether the display check was passed; None if it was not made."""

    reader: str
    pack: str
    file: str
    sha256: str
    items: int
    answered: int
    minutes: float | None
    seconds: float | None
    hasty: int = 0
    display: bool | None


class Row(FrozenConfig):
    """One answer to one question. volume: item of its source. level: None for "cannot assess"."""

    reader: str
    item: int
    code: str
    source: str
    volume: str
    repeat: Literal[0, 1]
    question: str
    level: int | None
    ms: float | None
    answered: datetime | None


class Choice(FrozenConfig):
    """One choice of a pair: the volume that was said to be real, and the other. confidence: level of how sure the reader
    was; None if it was not asked or not given."""

    reader: str
    item: int
    side: Literal["left", "right"]
    code: str
    source: str
    volume: str
    other_code: str
    other_source: str
    other_volume: str
    confidence: int | None = None
    ms: float | None
    answered: datetime | None


class Marked(FrozenConfig):
    """A mark, with the source of its volume."""

    reader: str
    source: str
    volume: str
    repeat: Literal[0, 1]
    mark: Mark


class Comment(FrozenConfig):
    reader: str
    item: int
    sources: tuple[str, ...]
    volumes: tuple[str, ...]
    words: str


class Unblinded(FrozenConfig):
    """All that an analysis needs; the key is not opened again. real: names of the sources of real volumes. lock_sha256: of
    the lock file. waived: quantities that the leak check left out."""

    schema_version: Literal[1] = 1
    title: str
    commitment: str
    protocol: str
    locked: datetime
    lock_sha256: str
    partial: bool
    absent: tuple[str, ...]
    withdrawn: tuple[Withdrawn, ...] = ()
    waived: tuple[str, ...] = ()
    design: Literal["ratings", "pairs"]
    language: str
    disclosed: bool
    sessions: int
    grid: StudyGrid
    rubric: Rubric
    sources: tuple[SourceRecord, ...]
    readers: tuple[ReaderRecord, ...]
    rows: tuple[Row, ...]
    choices: tuple[Choice, ...]
    marks: tuple[Marked, ...]
    comments: tuple[Comment, ...]

    @property
    def real(self) -> list[str]:
        return [one.name for one in self.sources if one.real]

    @property
    def models(self) -> list[str]:
        return [one.name for one in self.sources if not one.real]


def unblind(study: Study, key_file: Path, identity: Path | None = None) -> Unblinded:
    """Open the key and write `analysis/`. Raises `UserError` unless the returns are locked and unchanged, and the key,
    protocol and rubric are those that the packs were made with."""
    packs = packs_of(study)
    found = returns_of(study, packs)
    made = unchanged(study, found)
    key = read_key(key_file, identity)
    _same_study(study, key_file, key, packs, made)
    kept = locked_returns(found, made)
    if not kept:
        raise UserError(f"{study.returns}: every reader withdrew; there is nothing to analyse")
    joined = _joined(study, key, packs[0], kept, made)
    _opened(study, joined)
    write_json(study.analysis / FILE, joined.model_dump(mode="json"))
    for name, text in _tables(joined).items():
        write_text(study.analysis / f"{name}.csv", text)
    return joined


def _opened(study: Study, joined: Unblinded) -> None:
    """Record that the key was opened, when first, and the hash of what came of it."""
    path = study.returns / OPENED
    first = read_json(Opened, path).opened if path.exists() else datetime.now(UTC).replace(microsecond=0)
    record = Opened(opened=first, joined=digest(joined.model_dump(mode="json")))
    write_json(path, record.model_dump(mode="json"))


def confirmed(study: Study) -> Unblinded:
    """The unblinded answers, if they are what `unblind` wrote for the locked returns. Raises `UserError` if not.

    A return that is still in its folder must be the locked one.
    """
    joined, made = read_unblinded(study), read_lock(study)
    path, again = study.analysis / FILE, f"make it again: medlord-bench reading unblind {study.root} --key FILE"
    hashes = {one.reader: one.sha256 for one in joined.readers}
    same = joined.lock_sha256 == lock_hash(study) and joined.commitment == made.commitment
    if not same or hashes != {reader: one.sha256 for reader, one in made.returns.items()}:
        raise UserError(f"{path}: of another lock than that of {study.returns}; {again}")
    record = study.returns / OPENED
    if not record.exists():
        raise UserError(f"{record}: not found; expected the hash of {path.name}; {again}")
    if read_json(Opened, record).joined != digest(joined.model_dump(mode="json")):
        raise UserError(f"{path}: changed since the key was opened; {again}")
    for one in made.returns.values():
        file = study.returns / one.file
        if file.exists() and file_sha256(file) != one.sha256:
            raise UserError(f"{file}: changed since it was locked; put the locked file back")
    return joined


def read_unblinded(study: Study) -> Unblinded:
    try:
        return read_json(Unblinded, study.analysis / FILE)
    except FileNotFoundError:
        raise UserError(
            f"{study.analysis / FILE}: not found; first: medlord-bench reading unblind {study.root} --key FILE"
        ) from None


def _same_study(study: Study, file: Path, key: Key, packs: Sequence[Pack], made: Lock) -> None:
    for pack in packs:
        if key.commitment() != pack.commitment:
            raise UserError(
                f"{file}: its commitment is {key.commitment()[:16]}..., that of pack {pack.reader} is "
                f"{pack.commitment[:16]}...; the key was changed, or is of another study: give the key of the export"
            )
        if pack.rubric.digest() != key.rubric:
            raise UserError(f"{study.pack(pack.reader)}: its questions are not those of the key; put the export's back")
        lost = next((code for code in pack.codes if code not in key.of_reader(pack.reader)), None)
        if lost is not None:
            raise UserError(
                f"{study.pack(pack.reader)}: code {lost} is not in the key; put the pack of the export back"
            )
    if made.commitment != key.commitment():
        raise UserError(f"{study.returns}: the lock is of another key; the packs were exchanged after it")
    if read_protocol(study.protocol).digest() != key.protocol:
        raise UserError(f"{study.protocol}: changed since the export; put the protocol of the export back")


def _joined(study: Study, key: Key, pack: Pack, found: Sequence[Return], made: Lock) -> Unblinded:
    protocol = read_protocol(study.protocol)
    rows: list[Row] = []
    choices: list[Choice] = []
    marks: list[Marked] = []
    comments: list[Comment] = []
    for one in found:
        entries = key.of_reader(one.reader)
        for answer in one.answers:
            own = [entries[code] for code in answer.codes]
            rows += _rows(answer, own[0]) if len(own) == 1 else ()
            choices += _choices(answer, own, pack.rubric)
            for mark in answer.marks:
                entry = entries[mark.code]
                place = {"source": entry.source, "volume": entry.item, "repeat": entry.repeat}
                marks.append(Marked(reader=one.reader, mark=mark, **place))
            if answer.comment:
                names = tuple(entry.source for entry in own), tuple(entry.item for entry in own)
                words = answer.comment
                comments.append(
                    Comment(reader=one.reader, item=answer.item, sources=names[0], volumes=names[1], words=words)
                )
    return Unblinded(
        title=protocol.title,
        commitment=key.commitment(),
        protocol=key.protocol,
        locked=made.locked,
        partial=made.partial,
        lock_sha256=lock_hash(study),
        absent=made.absent,
        withdrawn=made.withdrawn,
        waived=protocol.waived,
        design=protocol.design,
        language=protocol.language,
        disclosed=protocol.disclosed,
        sessions=protocol.sessions,
        grid=pack.grid,
        rubric=pack.rubric,
        sources=key.sources,
        readers=tuple(_record(one) for one in found),
        rows=tuple(rows),
        choices=tuple(choices),
        marks=tuple(marks),
        comments=tuple(comments),
    )


def _record(one: Return) -> ReaderRecord:
    passed = one.header.display_check.get("passed") if one.header else None
    return ReaderRecord(
        reader=one.reader,
        pack=one.pack.id,
        file=one.path.name,
        sha256=one.sha256,
        items=len(one.pack.items),
        answered=len(one.answers),
        minutes=one.minutes,
        seconds=one.seconds,
        hasty=one.hasty,
        display=passed if isinstance(passed, bool) else None,
    )


def _rows(answer: Answer, entry: Entry) -> Iterable[Row]:
    for name, level in answer.answers.items():
        yield Row(
            reader=entry.reader,
            item=answer.item,
            code=entry.code,
            source=entry.source,
            volume=entry.item,
            repeat=entry.repeat,
            question=name,
            level=None if level == CANNOT else level,
            ms=answer.ms,
            answered=answer.answered,
        )


def _choices(answer: Answer, entries: Sequence[Entry], rubric: Rubric) -> Iterable[Choice]:
    if answer.choice is None:
        return
    asked = next((one.name for one in rubric.questions if one.kind == "confidence"), "")
    sure = answer.answers.get(asked)
    chosen, other = entries if answer.choice == "left" else reversed(entries)
    yield Choice(
        reader=chosen.reader,
        item=answer.item,
        side=answer.choice,
        code=chosen.code,
        source=chosen.source,
        volume=chosen.item,
        other_code=other.code,
        other_source=other.source,
        other_volume=other.item,
        confidence=sure if isinstance(sure, int) else None,
        ms=answer.ms,
        answered=answer.answered,
    )


def _tables(joined: Unblinded) -> Mapping[str, str]:
    """CSV by name. A text that a spreadsheet would run gets an apostrophe."""
    comments = [
        [one.reader, one.item, *map(" | ".join, (one.sources, one.volumes)), one.words] for one in joined.comments
    ]
    marks = [
        [one.reader, one.source, one.volume, one.repeat, one.mark.plane, *one.mark.point, one.mark.cue, one.mark.words]
        for one in joined.marks
    ]
    texts = {
        "answers": table(tuple(Row.model_fields), (list(one.model_dump(mode="json").values()) for one in joined.rows)),
        "choices": table(
            tuple(Choice.model_fields), (list(one.model_dump(mode="json").values()) for one in joined.choices)
        ),
        "marks": table(("reader", "source", "volume", "repeat", "plane", "i", "j", "k", "cue", "words"), marks),
        "comments": table(("reader", "item", "sources", "volumes", "words"), comments),
    }
    return {
        name: text for name, text in texts.items() if name != ("answers" if joined.design == "pairs" else "choices")
    }
