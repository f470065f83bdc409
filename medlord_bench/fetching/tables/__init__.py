"""CT series of public collections and their patients: the tables of this folder, made by `fetching/make_tables.py`."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Series:
    """A CT series at the Imaging Data Commons. folder: its name in the bucket."""

    patient: str
    uid: str
    folder: str


def series_of(table: str, column: str = "") -> list[Series]:
    """The series of a shipped table, by patient; column: only rows with 1 in it. Its first lines say where it comes from."""
    text = resources.files("medlord_bench.fetching.tables").joinpath(table).read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    kept = [row for row in rows if not column or row[column] == "1"]
    return sorted(
        (Series(row["patient"], row["series"], row["folder"]) for row in kept), key=lambda one: (one.patient, one.uid)
    )
