"""Where a slice lies, as its file says."""

from __future__ import annotations

from dataclasses import dataclass

Vector = tuple[float, ...]


@dataclass(frozen=True)
class Frame:
    """Where a slice lies, in mm in DICOM's patient system (L, P, S); None for what the file does not say.

    spacing: between rows, then between columns. orientation: directions of a row and of a column.
    """

    position: Vector | None
    orientation: Vector | None
    spacing: Vector | None
