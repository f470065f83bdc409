"""Files that only stand for their content: broken links of git-annex and DataLad, pointers of git-annex and Git LFS."""

from __future__ import annotations

from pathlib import Path

from medlord_bench.errors import MissingError, UserError

LARGEST = 1024  # bytes; pointers are shorter
LFS, ANNEX = b"version https://git-lfs.github.com/spec/", b"/annex/objects/"


def pointer_of(path: Path) -> bool:
    """Whether a file is a link to nothing, or a pointer of git-annex or Git LFS. Raises `OSError` if it may not be
    opened."""
    if not path.exists():
        return path.is_symlink()
    if not path.is_file() or path.stat().st_size > LARGEST:
        return False
    with open(path, "rb") as file:
        start = file.read(len(LFS))
    return start == LFS or start.startswith(ANNEX)


def is_special(path: Path) -> bool:
    """Whether it is neither a file nor a folder, but a pipe, socket or device: opening or reading it may never end."""
    return path.exists() and not path.is_file() and not path.is_dir()


def check_content(path: Path) -> None:
    """Raise `MissingError` (exit code 3) for a file whose content was not fetched, and `UserError` for a pipe or device."""
    if is_special(path):
        raise UserError(f"{path}: is a pipe, socket or device; expected a file: remove it")
    if pointer_of(path):
        raise MissingError(
            f"{path}: a link or pointer whose content was not fetched; expected the file itself: fetch it "
            "(datalad get, git annex get, git lfs pull)"
        )
