"""The sha256 of model files, cached per process for each state of a file, since many steps need it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from medlord_bench.util.hashing import file_sha256


def sha256(path: Path) -> str:
    """As `hashing.file_sha256`, cached by path, size and modification time."""
    facts = path.stat()
    return _sha256(path.resolve(), facts.st_size, facts.st_mtime_ns)


@cache
def _sha256(path: Path, size: int, changed: int) -> str:
    return file_sha256(path)
