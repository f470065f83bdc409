"""The text of a user's command: split into words without a shell, its placeholders filled in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
GRID = ("x", "y", "z")


def words_of(text: str, known: Sequence[str], needed: Sequence[Sequence[str]]) -> list[str]:
    """The words of a command. known: allowed placeholders; needed: groups, of each of which one is required.

    Raises ValueError for unclosed quotes, an unknown placeholder, or one that is missing.
    """
    words = shlex.split(text)
    if not words:
        raise ValueError("expected a program and its arguments")
    found = {name for word in words for name in PLACEHOLDER.findall(word)}
    choices = ", ".join(f"{{{name}}}" for name in known)
    for name in sorted(found - set(known)):
        raise ValueError(f"unknown placeholder {{{name}}}; expected one of {choices}")
    for group in needed:
        if not found.intersection(group):
            raise ValueError(f"expected {' or '.join(f'{{{name}}}' for name in group)} in it; known: {choices}")
    return words


def filled(words: Sequence[str], values: Mapping[str, object]) -> list[str]:
    """The words with each placeholder replaced; nothing is quoted or split again, so spaces in paths are safe."""
    return [PLACEHOLDER.sub(lambda match: str(values[match[1]]), word) for word in words]


def files_in(words: Sequence[str], folder: Path) -> list[Path]:
    """The files that a command names as a separate word or after ``=``, relative to `folder`, in order."""
    named = [part for word in words for part in (word, word.partition("=")[2]) if part and not PLACEHOLDER.search(part)]
    paths = [folder / Path(part).expanduser() for part in named]
    return [path for path in dict.fromkeys(paths) if path.is_file()]
