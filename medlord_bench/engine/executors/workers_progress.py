"""The progress of worker processes, which they write to their logs, on this process's stderr."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import TextIO

A_PROGRESS_LINE = re.compile(r".+: \d+/\d+  \S")  # as `util.progress.PlainProgress` writes it
NEW_LINE_IN_PLACE = "\r\x1b[K"


class WorkersProgress:
    """Shows the progress lines of a step's first shard: in one place on a terminal, as they are elsewhere.

    log: its log file, of which the first `size` bytes are of earlier work. shards: how many the step has.
    """

    def __init__(self, log: Path, size: int, shards: int, out: TextIO | None = None) -> None:
        self.log, self.read, self.shards = log, size, shards
        self.out = out or sys.stderr
        self.in_place = self.out.isatty()
        self.shown = False

    def show(self) -> None:
        """Show what is new."""
        try:
            with open(self.log, "rb") as file:
                file.seek(self.read)
                new = file.read()
        except FileNotFoundError:
            return
        whole = new[: new.rfind(b"\n") + 1]
        self.read += len(whole)
        lines = [line for line in whole.decode(errors="replace").splitlines() if A_PROGRESS_LINE.match(line)]
        if self.in_place:
            lines = lines[-1:]
        for line in lines:
            self._write(f"{line}  (part 1 of {self.shards})" if self.shards > 1 else line)

    def close(self) -> None:
        """Show the rest, and leave a terminal's line empty for what follows."""
        self.show()
        self.hide()

    def hide(self) -> None:
        """Leave a terminal's line empty for other output."""
        if self.shown:
            print(NEW_LINE_IN_PLACE, end="", file=self.out, flush=True)
        self.shown = False

    def _write(self, line: str) -> None:
        if not self.in_place:
            print(line, file=self.out, flush=True)
            return
        width = shutil.get_terminal_size().columns
        print(NEW_LINE_IN_PLACE + line[: width - 1], end="", file=self.out, flush=True)
        self.shown = True
