"""A reader withdraws after the lock: the return leaves the lock, and all that was made from it is removed."""

from __future__ import annotations

from datetime import UTC, datetime

from medlord_bench.errors import UserError
from medlord_bench.util.files import write_json

from .lock import FILE, UNBLINDED, Lock, Withdrawn, lock_hash, opened, read_lock
from .study import Study

DERIVED = (  # what `unblind` and `analyse` write; both write it again without the reader
    UNBLINDED, "answers.csv", "choices.csv", "marks.csv", "comments.csv", "summary.json", "summary.md", "findings.csv",
    "checklist.md", "ratings.csv", "mrmc.csv", "mrmc.R", "levels_long.csv", "mark_counts.csv",
    "marks_map.csv", "marks_map.png", "marks_map.svg", "marks_map.pdf",
)  # fmt: skip


def withdraw(study: Study, reader: str, delete: bool = False) -> Lock:
    """Take a reader's return out of the lock, and remove `analysis/`'s files. delete: the return's file too.

    Raises `UserError` without a lock, or for a reader without a return in it.
    """
    made = read_lock(study)
    entry = made.returns.get(reader)
    if entry is None:
        gone = any(one.reader == reader for one in made.withdrawn)
        why = "withdrew already" if gone else f"has no return in the lock; it has {', '.join(made.returns) or 'none'}"
        raise UserError(f"{study.returns / FILE}: reader {reader!r:.40} {why}")
    record = Withdrawn(
        reader=reader,
        date=datetime.now(UTC).replace(microsecond=0),
        unblinded=opened(study) is not None,
        lock_sha256=lock_hash(study),
        entry=entry,
    )
    left = {name: one for name, one in made.returns.items() if name != reader}
    changed = made.model_copy(update={"returns": left, "withdrawn": (*made.withdrawn, record)})
    write_json(study.returns / FILE, changed.model_dump(mode="json"))
    for name in DERIVED:
        (study.analysis / name).unlink(missing_ok=True)
    if delete:
        (study.returns / entry.file).unlink(missing_ok=True)
    return changed
