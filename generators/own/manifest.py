"""The roles of files: the manifest of a folder of samples, or its volume files in natural order."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from medlord_bench.contracts import Purpose, registry
from medlord_bench.errors import MissingError, UserError
from medlord_bench.plugins.datasets.on_disk.layouts import Cases, of_samples
from medlord_bench.util.text_tables import read_table
from medlord_bench.volumes.formats import SUFFIXES, stem_of, suffix_of
from medlord_bench.volumes.listing import Listing, check_readable, listed
from medlord_bench.volumes.names import MASK_NAME

from .mapping import ARRAYS

DEFAULT = "manifest.csv"
COLUMNS = ("sample", "condition", "reconstruction_of")
KINDS = ", ".join((*SUFFIXES, *ARRAYS))


@dataclass(frozen=True)
class Row:
    """One file, or DICOM series. case: the case of its mask, or of the image it reconstructs; empty for an unconditional
    sample. files: of a series, if not all of its folder."""

    path: Path
    purpose: Purpose
    case: str = ""
    files: tuple[Path, ...] = ()


def is_volume(path: Path) -> bool:
    return bool(suffix_of(path)) or path.suffix.lower() in ARRAYS


def natural(path: Path) -> list[tuple[int, str]]:
    """Sorts sample_2 before sample_10."""
    parts = re.split(r"(\d+)", path.as_posix().lower())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def rows_of(folder: Path, manifest: Path | None) -> list[Row]:
    """The files of a folder, unconditional samples in numeric order.

    Raises `MissingError` if folder or manifest is missing, `UserError` if it names no file or one file twice.
    """
    if not folder.is_dir():
        raise MissingError(f"{folder}: not a folder; expected generated volumes ({KINDS})")
    path = folder / DEFAULT if manifest is None else folder / manifest.expanduser()
    if manifest is None and not path.exists():
        return _of_folder(folder)
    if not path.exists():
        raise MissingError(f"{path}: not found; expected the manifest: a CSV with columns {', '.join(COLUMNS)}")
    rows = list(_of_manifest(folder, path))
    if not rows:
        raise UserError(f"{path}: names no file; expected one line per volume")
    _check_once(path, rows)
    return rows


def searched(folder: Path) -> tuple[Listing, Cases]:
    """Every file below a folder of samples, and the volumes among them: files, or DICOM series.

    Raises `MissingError` if the folder is missing, and `UserError` naming series that cannot be read.
    """
    if not folder.is_dir():
        raise MissingError(f"{folder}: not a folder; expected generated volumes ({KINDS})")
    listing = listed(folder, suffixes=(*SUFFIXES, *ARRAYS), flat=True)
    check_readable(listing)
    return listing, of_samples(listing)


def _of_folder(folder: Path) -> list[Row]:
    found = sorted(searched(folder)[1].found, key=lambda one: natural(one.image.relative_to(folder)))
    if not found:
        raise UserError(
            f"{folder}: no volumes; expected files ({KINDS}) or DICOM series in it, or a {DEFAULT} that names them"
        )
    for one in found:
        if one.image.is_file() and MASK_NAME.fullmatch(stem_of(one.image)):
            raise UserError(
                f"{one.image}: its name is that of a mask; expected samples only: "
                f"move it, or name the samples in a {DEFAULT}"
            )
    return [Row(one.image, "sample", files=one.files) for one in found]


def _of_manifest(folder: Path, manifest: Path) -> Iterator[Row]:
    fields, rows = read_table(manifest)
    unknown = [name for name in fields if name not in COLUMNS]
    if unknown:
        raise UserError(f"{manifest}: {registry.unknown('column', unknown[0], COLUMNS)}")
    if "sample" not in fields:
        raise UserError(f"{manifest}: no column 'sample'; expected the columns {', '.join(COLUMNS)}, that one at least")
    for number, line in rows:
        yield _row(folder, f"{manifest}: line {number}", line)


def _row(folder: Path, where: str, line: Mapping[str, str]) -> Row:
    text, condition, original = line["sample"], line.get("condition", ""), line.get("reconstruction_of", "")
    path = Path(os.path.normpath(folder / text))
    if not text or not path.is_relative_to(os.path.normpath(folder)):
        raise UserError(f"{where}, column 'sample' is {text!r}; expected a path below {folder}")
    if not path.exists():
        raise MissingError(f"{where}: {path}: not found; expected a volume: add it, or fix the line")
    if not is_volume(path) and not path.is_dir():
        raise UserError(f"{where}: {path}: not a volume suffix; expected {KINDS}")
    if condition and original:
        raise UserError(f"{where} has a condition and a reconstruction_of; expected one of them, or neither")
    if condition:
        return Row(path, "sample-conditional", condition)
    return Row(path, "reconstruct", original) if original else Row(path, "sample")


def _check_once(manifest: Path, rows: list[Row]) -> None:
    """A file listed twice would inflate n; of two files for one case one would be ignored."""
    files: set[Path] = set()
    cases: set[tuple[Purpose, str]] = set()
    for row in rows:
        if row.path in files:
            raise UserError(f"{manifest}: {row.path} is named twice; expected each file once")
        files.add(row.path)
        if row.case and (row.purpose, row.case) in cases:
            raise UserError(
                f"{manifest}: two files for case {row.case!r}, one is {row.path}; expected one for each case"
            )
        cases.add((row.purpose, row.case))
