"""A figure on disk: as PDF, SVG and PNG, with its numbers beside it; the same results give the same bytes."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medlord_bench.util.files import publish, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METADATA: Mapping[str, Mapping[str, str | None]] = {
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
    "png": {"Software": None},
}
SUFFIXES = (*METADATA, "csv")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
UNSAFE = re.compile(r"[^A-Za-z0-9._@-]+")
Value = object  # a text or number; None for an empty cell


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure to write. name: of its files. columns, rows: its numbers."""

    name: str
    figure: Figure
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]


def safe_name(text: str) -> str:
    """A name that is one file on every system."""
    return UNSAFE.sub("_", text).strip("._-")[:80] or "figure"


def write(drawn: Drawn, folder: Path) -> list[Path]:
    """Write `NAME.pdf`, `.svg`, `.png` and `.csv` into the folder; call it within the style that it was drawn in."""
    name = safe_name(drawn.name)
    engine = drawn.figure.get_layout_engine()
    if engine is not None:
        engine.execute(drawn.figure)
        drawn.figure.set_layout_engine("none")  # it takes long: once, not once for each format
    paths = []
    for suffix, metadata in METADATA.items():
        buffer = io.BytesIO()
        drawn.figure.savefig(buffer, format=suffix, metadata=metadata)
        content = buffer.getvalue()
        paths.append(folder / f"{name}.{suffix}")
        publish(paths[-1], lambda temporary, content=content: temporary.write_bytes(content))  # type: ignore[misc]
    paths.append(folder / f"{name}.csv")
    write_text(paths[-1], table(drawn.columns, drawn.rows))
    return paths


def table(columns: Sequence[str], rows: Iterable[Sequence[Value]]) -> str:
    """CSV at full precision; None is empty, and a text that a spreadsheet would take for a formula gets an apostrophe."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue()


def _cell(value: Value) -> Value:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA) else value
    return float(value) if isinstance(value, float) else value
