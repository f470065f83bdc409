"""Files that only stand for their content: broken links of git-annex and DataLad, pointers of git-annex and Git LFS."""

from __future__ import annotations

from pathlib import Path

from medlord_bench.errors import MissingError

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


def check_content(path: Path) -> None:
    """Raise `MissingError` (exit code 3) for a file whose content was not fetched."""
    if pointer_of(path):
        raise MissingError(
            f"{path}: a link or pointer whose content was not fetched; expected the file itself: fetch it "
            "(datalad get, git annex get, git lfs pull)"
        )
