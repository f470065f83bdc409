"""Case by case: the rows of `cases.csv` as tables that the reader sorts and filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medlord_bench.contracts.metrics import Quantity
from medlord_bench.contracts.results import CaseRow
from medlord_bench.results.pictures import short_id

MAX_ROWS = 40_000  # rows in the page; all of them are in cases.csv


@dataclass(frozen=True)
class CaseTable:
    """One metric's rows. columns: their titles. rows: as lists, filled in by the page's script. left_out: rows that are
    only in the file."""

    metric: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    left_out: int


def case_tables(rows: Sequence[CaseRow], quantities: Mapping[str, Quantity]) -> list[CaseTable]:
    """A table per metric, in the order of the rows; a column is left out if it is empty throughout."""
    by_metric: dict[str, list[CaseRow]] = {}
    for row in rows:
        by_metric.setdefault(row.metric, []).append(row)
    room = MAX_ROWS
    made = []
    for metric, members in by_metric.items():
        made.append(_table(metric, members, quantities.get(metric), room))
        room -= len(made[-1].rows)
    return made


def _table(metric: str, rows: Sequence[CaseRow], quantity: Quantity | None, room: int) -> CaseTable:
    unit = f" ({quantity.unit})" if quantity and quantity.unit else ""
    columns = {
        "contestant": lambda row: row.generator or f"real {row.split}".strip(),
        "case": lambda row: short_id(row.case),
        "region": lambda row: row.region.replace("_", " "),
        "beside": lambda row: short_id(row.against),
        metric + unit: lambda row: float(f"{row.value:.6g}") if abs(row.value) != float("inf") else str(row.value),
    }
    kept = {title: value for title, value in columns.items() if any(value(row) != "" for row in rows)}
    shown = [[value(row) for value in kept.values()] for row in rows[: max(room, 0)]]
    return CaseTable(metric, list(kept), shown, len(rows) - len(shown))
