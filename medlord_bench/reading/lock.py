"""The lock of a study: the hashes of all returns, taken before the key is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from medlord_bench.contracts import FrozenConfig
from medlord_bench.contracts.validation import read_json
from medlord_bench.errors import MissingError, UserError
from medlord_bench.util.files import write_json
from medlord_bench.util.hashing import file_sha256

from .pack import Pack, read_pack
from .returns import Return, read_returns
from .study import Study

FILE, OPENED = "lock.json", "opened.json"
UNBLINDED = "unblinded.json"  # written when the key is opened
SUFFIXES = (".jsonl", ".csv")


class Locked(FrozenConfig):
    """One return as it was locked."""

    file: str
    sha256: str
    pack: str
    answered: int
    items: int


class Withdrawn(FrozenConfig):
    """A reader whose return left the study. unblinded: whether the key had been opened before. lock_sha256: of the lock
    before; with `entry` put back among its returns, the lock has that hash again."""

    reader: str
    date: datetime
    unblinded: bool
    lock_sha256: str
    entry: Locked


class Lock(FrozenConfig):
    """`returns/lock.json`. returns: by reader. partial: locked although items or readers are missing; absent: readers of a
    pack without a return."""

    schema_version: Literal[1] = 1
    locked: datetime
    commitment: str
    partial: bool
    returns: Mapping[str, Locked]
    absent: tuple[str, ...] = ()
    withdrawn: tuple[Withdrawn, ...] = ()


class Opened(FrozenConfig):
    """`returns/opened.json`, written when the key is opened. joined: sha256 of `analysis/unblinded.json`."""

    schema_version: Literal[1] = 1
    opened: datetime
    joined: str


def packs_of(study: Study) -> list[Pack]:
    """The packs of all readers. Raises `UserError` if there is none, or they are of different keys."""
    if not study.packs.is_dir():
        raise MissingError(
            f"{study.packs}: not found; expected the packs of a study: give the folder that export wrote"
        )
    packs = [read_pack(folder) for folder in sorted(study.packs.iterdir()) if folder.is_dir()]
    if not packs:
        raise MissingError(f"{study.packs}: no packs; expected those of a study: give the folder that export wrote")
    if len({one.commitment for one in packs}) > 1:
        raise UserError(f"{study.packs}: packs of different keys; expected those of one export")
    return packs


def returns_of(study: Study, packs: Sequence[Pack]) -> list[Return]:
    """Every return of a study, checked."""
    folder = study.returns
    files = sorted(one for one in folder.iterdir() if one.suffix in SUFFIXES) if folder.is_dir() else []
    if not files:
        raise MissingError(f"{folder}: no returns; put the readers' files there, such as R1.jsonl")
    found = read_returns(files, packs)
    for one in found:
        if one.header is not None and one.path.stem != one.reader:
            raise UserError(
                f"{one.path}: is the return of reader {one.reader}; expected the name {one.reader}{one.path.suffix}: rename it "
                "if it is that reader's, else remove it"
            )
    return found


def lock(study: Study, partial: bool = False) -> Lock:
    """Write the lock. A second call with the same returns changes nothing.

    Raises `UserError` for an incomplete return or a reader without one, unless `partial`, and for returns that were locked
    in another state.
    """
    packs = packs_of(study)
    found = returns_of(study, packs)
    path = study.returns / FILE
    if path.exists():
        return unchanged(study, found)
    trace = opened(study)
    if trace is not None:
        raise UserError(
            f"{trace}: the key was opened already, so a new lock proves nothing; put {path} of that time back"
        )
    here = {one.reader for one in found}
    absent = tuple(one.reader for one in packs if one.reader not in here)
    if absent and not partial:
        raise UserError(f"{study.returns}: no return of {', '.join(absent)}; wait for it, or lock with --partial")
    lacking = next((one for one in found if one.missing), None)
    if lacking is not None and not partial:
        raise UserError(f"{lacking.incomplete()}, or lock with --partial")
    returns = {
        one.reader: Locked(
            file=one.path.name,
            sha256=one.sha256,
            pack=one.pack.digest(),
            answered=len(one.answers),
            items=len(one.pack.items),
        )
        for one in found
    }
    made = Lock(
        locked=datetime.now(UTC).replace(microsecond=0),
        commitment=packs[0].commitment,
        partial=bool(absent or lacking),
        returns=returns,
        absent=absent,
    )
    write_json(path, made.model_dump(mode="json"))
    return made


def opened(study: Study) -> Path | None:
    """The file that shows that the key was opened; None if there is none."""
    traces = (study.returns / OPENED, study.analysis / UNBLINDED)
    return next((path for path in traces if path.exists()), None)


def locked_returns(found: Sequence[Return], made: Lock) -> list[Return]:
    """Without those of readers who withdrew."""
    return [one for one in found if one.reader in made.returns]


def read_lock(study: Study) -> Lock:
    """Raises `UserError` if there is none."""
    path = study.returns / FILE
    try:
        return read_json(Lock, path)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; lock the returns first: medlord-bench reading lock {study.root}") from None


def lock_hash(study: Study) -> str:
    """sha256 of the lock file."""
    return file_sha256(study.returns / FILE)


def unchanged(study: Study, found: Sequence[Return]) -> Lock:
    """The lock, if the returns are those that were locked. Raises `UserError` naming the first that is not."""
    made = read_lock(study)
    files = {one.reader: one for one in found}
    for reader, locked in made.returns.items():
        now = files.get(reader)
        if now is None or now.path.name != locked.file:
            raise UserError(f"{study.returns / locked.file}: not found, but locked; put the locked file back")
        if now.sha256 != locked.sha256:
            raise UserError(f"{now.path}: changed since it was locked; put the locked file back")
        if now.pack.digest() != locked.pack:
            raise UserError(f"{study.pack(reader)}: changed since the lock; put the pack of the export back")
    known = {*made.returns, *(one.reader for one in made.withdrawn)}
    added = next((one for one in found if one.reader not in known), None)
    if added is not None:
        raise UserError(f"{added.path}: came after the lock; remove it: a later return is not blinded for sure")
    return made
