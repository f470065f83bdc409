"""The roles of files: the manifest of a folder of samples, or its volume files in natural order."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from medlord_bench.contracts import Purpose, registry
from medlord_bench.errors import MissingError, UserError
from medlord_bench.volumes.formats import SUFFIXES, stem_of, suffix_of
from medlord_bench.volumes.names import MASK_NAME

from .mapping import ARRAYS

DEFAULT = "manifest.csv"
COLUMNS = ("sample", "condition", "reconstruction_of")
KINDS = ", ".join((*SUFFIXES, *ARRAYS))


@dataclass(frozen=True)
class Row:
    """One file. case: the case of its mask, or of the image it reconstructs; empty for an unconditional sample."""

    path: Path
    purpose: Purpose
    case: str = ""


def is_volume(path: Path) -> bool:
    return bool(suffix_of(path)) or path.suffix.lower() in ARRAYS


def natural(path: Path) -> list[tuple[int, str]]:
    """Sorts sample_2 before sample_10."""
    parts = re.split(r"(\d+)", path.name.lower())
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


def _of_folder(folder: Path) -> list[Row]:
    found = sorted((p for p in folder.iterdir() if is_volume(p) and not p.name.startswith(".")), key=natural)
    if not found:
        raise UserError(
            f"{folder}: no volumes; expected files ({KINDS}) directly in it, or a {DEFAULT} that names them"
        )
    for path in found:
        if MASK_NAME.fullmatch(stem_of(path)):
            raise UserError(
                f"{path}: its name is that of a mask; expected samples only: "
                f"move it, or name the samples in a {DEFAULT}"
            )
    return [Row(path, "sample") for path in found]


def _of_manifest(folder: Path, manifest: Path) -> Iterator[Row]:
    with open(manifest, newline="", encoding="utf-8-sig") as file:
        first = file.readline()
        file.seek(0)
        lines = csv.DictReader(file, delimiter="\t" if "\t" in first else ",")
        fields = [name.strip() for name in lines.fieldnames or []]
        unknown = [name for name in fields if name not in COLUMNS]
        if unknown:
            raise UserError(f"{manifest}: {registry.unknown('column', unknown[0], COLUMNS)}")
        if "sample" not in fields:
            raise UserError(
                f"{manifest}: no column 'sample'; expected the columns {', '.join(COLUMNS)}, that one at least"
            )
        lines.fieldnames = fields
        for number, line in enumerate(lines, start=2):
            yield _row(folder, f"{manifest}: line {number}", {k: (v or "").strip() for k, v in line.items() if k})


def _row(folder: Path, where: str, line: Mapping[str, str]) -> Row:
    text, condition, original = line["sample"], line.get("condition", ""), line.get("reconstruction_of", "")
    path = Path(os.path.normpath(folder / text))
    if not text or not path.is_relative_to(os.path.normpath(folder)):
        raise UserError(f"{where}, column 'sample' is {text!r}; expected a path below {folder}")
    if not path.exists():
        raise MissingError(f"{where}: {path}: not found; expected a volume: add it, or fix the line")
    if not is_volume(path):
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
