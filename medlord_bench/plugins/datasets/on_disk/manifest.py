"""The manifest of a cohort: a table that names images, patients, masks and splits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from medlord_bench.errors import MissingError, UserError
from medlord_bench.util.text_tables import read_table
from medlord_bench.volumes.fingerprints import Found
from medlord_bench.volumes.formats import stem_of

COLUMNS = ("id", "patient", "image", "mask", "split")


def cases_of(root: Path, manifest: Path) -> Iterator[Found]:
    """The cases of a manifest, its paths below `root`. Raises `MissingError` or `UserError` naming the line."""
    path = manifest if manifest.is_absolute() or not (root / manifest).exists() else root / manifest
    if not path.exists():
        raise MissingError(f"{path}: not found; expected the manifest: a CSV with columns {', '.join(COLUMNS)}")
    fields, rows = read_table(path)
    unknown = sorted(set(fields) - set(COLUMNS))
    if "image" not in fields or unknown:
        wrong = f"unknown column {unknown[0]!r}" if unknown else "no column 'image'"
        raise UserError(f"{path}: {wrong}; expected the columns {', '.join(COLUMNS)}, 'image' at least")
    for number, row in rows:
        yield _row(root, path, number, row)


def _row(root: Path, path: Path, number: int, row: Mapping[str, str]) -> Found:
    if not row["image"]:
        raise UserError(f"{path}: line {number}, column 'image' is empty; expected a path below {root}")
    image = _existing(root, path, number, row["image"])
    split = row.get("split", "").lower() or None
    if split not in (None, "train", "val", "test"):
        raise UserError(
            f"{path}: line {number}, column 'split' is {row['split']!r}; expected train, val, test or nothing"
        )
    inside = Path(os.path.normpath(image)).is_relative_to(os.path.normpath(root))
    if not row.get("id") and not inside:
        raise UserError(
            f"{path}: line {number}: {image} is not below {root}, so that it gives no id; expected a column 'id' with one"
        )
    name = row.get("id") or "__".join([*image.relative_to(root).parts[:-1], stem_of(image)])
    mask = _existing(root, path, number, row["mask"]) if row.get("mask") else None
    return Found(name, row.get("patient") or name, image, mask, split)  # type: ignore[arg-type]


def _existing(root: Path, path: Path, number: int, text: str) -> Path:
    """A path of the manifest; one written on Windows, with backslashes, is read too."""
    found = next((root / one for one in (text, text.replace("\\", "/")) if os.path.exists(root / one)), None)  # noqa: PTH110 - False for a name that no file can have
    if found is None:
        raise MissingError(
            f"{path}: line {number}: {root / text}: not found; expected an image: fix the path or the line"
        )
    return found
