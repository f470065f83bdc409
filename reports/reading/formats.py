"""The files of a pack besides its raw cases: one function for each format that a protocol names."""

from __future__ import annotations

from pathlib import Path

from .pack import Pack


def finish(folder: Path, pack: Pack) -> None:
    """Add what the formats need to a pack that has its raw cases."""
