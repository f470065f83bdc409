"""Paths as text for people: in messages, tables and JSON."""

from __future__ import annotations

import os
from pathlib import Path


def shown(path: Path, root: Path | None = None) -> str:
    """A path, below `root` if it is, on one line that every file and terminal takes.

    Bytes that are not UTF-8 and characters that cannot be printed, such as a line break, are escaped.
    """
    text = path.relative_to(root).as_posix() if root is not None and path.is_relative_to(root) else str(path)
    text = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
