"""Tables that people write: CSV with commas, semicolons or tabs, and JSON; in UTF-8, with a byte order mark or without."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from medlord_bench.errors import UserError
from medlord_bench.util.documents import parse_json

DELIMITERS = (",", ";", "\t")
UTF16 = (b"\xff\xfe", b"\xfe\xff")
LARGEST = 200_000_000  # bytes of a table
BOM = "\ufeff"


def read_text(path: Path) -> str:
    """A text file in UTF-8, without its byte order mark. Raises `UserError` naming a file in another encoding."""
    if path.exists() and not path.is_file() and not path.is_dir():  # reading a pipe or a device may never end
        raise UserError(f"{path}: is neither a file nor a folder; expected text in UTF-8")
    if path.is_file() and path.stat().st_size > LARGEST:
        raise UserError(f"{path}: {path.stat().st_size:,} bytes, expected a table of at most {LARGEST:,}")
    content = path.read_bytes()
    if content.startswith(UTF16) or b"\0" in content[:200]:
        raise UserError(f"{path}: its encoding is UTF-16; expected UTF-8: save it as UTF-8 (in Excel: 'CSV UTF-8')")
    try:
        return content.decode("utf-8").replace(BOM, "")  # some programs append a second one
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}: line {line}: byte 0x{content[error.start]:02x} is not UTF-8 (its encoding may be Windows-1252 or "
            "Latin-1); expected UTF-8: save it as UTF-8 (in Excel: 'CSV UTF-8')"
        ) from None


def read_json(path: Path) -> Any:
    """JSON in UTF-8. Raises `UserError` for another encoding and ValueError for text that is not JSON."""
    return parse_json(read_text(path))


def read_table(path: Path) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """The columns of a table, and its rows with their line numbers; values without spaces around them.

    The delimiter is that of `DELIMITERS` which the first line has most often. Column names are in lower case. Empty
    lines are left out. Raises `UserError` for a file that is not in UTF-8, or has a column twice.
    """
    text = read_text(path)
    first = text.splitlines()[0] if text.strip() else ""
    delimiter = max(DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = [name.strip().lower() for name in next(reader, [])]
    twice = next((name for name in columns if name and columns.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: column {twice!r} is there twice; expected each column once: remove or rename one")
    return columns, _rows(reader, columns)


def _rows(reader: Any, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    for cells in reader:
        if cells:
            values = [cell.strip() for cell in cells]
            yield reader.line_num, dict(zip(columns, values + [""] * len(columns), strict=False))
