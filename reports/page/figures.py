"""Figures of the page: PNG files beside it, and the same bytes inside it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from medlord_bench.util.files import publish


@dataclass(frozen=True)
class Picture:
    """A figure on the page. `dark`: its version for a dark page, if it differs. Sources are data URIs."""

    source: str
    alt: str
    dark: str | None = None


class FigureFolder:
    """The folder of the PNG files; each is also embedded as a `data:` URI, so that the page is self-contained."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths: list[Path] = []

    def add(self, name: str, png: bytes) -> str:
        """Write `NAME.png` (made unique and safe as a file name) and return its data URI."""
        safe = "".join(letter if letter.isalnum() or letter in "-_@.+" else "-" for letter in name).strip(".-") or "x"
        taken = {path.name for path in self.paths}
        unique = next(n for i in range(len(taken) + 1) if (n := f"{safe[:80]}{f'-{i}' * bool(i)}.png") not in taken)
        path = self.folder / unique
        write(path, png)
        self.paths.append(path)
        return "data:image/png;base64," + base64.b64encode(png).decode()


def write(path: Path, content: bytes) -> None:
    """Write a file atomically: a reader never sees a partial file."""
    publish(path, lambda temporary: temporary.write_bytes(content))
