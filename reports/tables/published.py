"""The paper's own values, from `published.csv`: shown on request in grids of their own, never ranked."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib.resources import files

from .grid import Cell, Column, Panel, Row

HEADING = "Published; comparability unknown"
FILE = "published.csv"
BRACKETS = {"adherence": "median (interquartile range)", "downstream": "median (interquartile range)"}
Record = dict[str, str]


def records(table: str) -> list[Record]:
    """The published values of a table, as in the file."""
    text = files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    return [row for row in csv.DictReader(text.splitlines()) if row["table"] == table]


def panel(table: str, known: Sequence[Record]) -> Panel:
    """In the paper's layout: regions across, or data sets and metrics down and contestants across."""
    cells = {_key(one): Cell(one["value"], f"({one['spread']})" if one["spread"] else "") for one in known}
    regional = any(one["region"] for one in known)
    rows, columns = (list(dict.fromkeys(key[i] for key in cells)) for i in (0, 1))
    if regional:
        corners: tuple[str, ...] = ("Metric",)
    else:
        corners = ("Data set", "Metric")
    sources = "; ".join(dict.fromkeys(one["source"] for one in known))
    contestants = f" of {known[0]['contestant']}" if regional else ""
    brackets = BRACKETS.get(table, "mean (standard deviation)" if any(one["spread"] for one in known) else "")
    caption = f"{HEADING}. Values{contestants} as printed in: {sources}." + (
        f" {brackets.capitalize()}." if brackets else ""
    )
    return Panel(
        f"{table}-published",
        caption,
        corners,
        [Column(column) for column in columns],
        [[Row(row, [cells.get((row, column), Cell()) for column in columns]) for row in rows]],
    )


def _key(one: Record) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if one["region"]:
        return (one["metric"],), (f"{one['region']} ({one['dataset']})",)
    return (one["dataset"], one["metric"]), (one["contestant"],)
