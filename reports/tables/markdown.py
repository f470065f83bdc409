"""Tables as Markdown (GitHub's), padded so that the plain text reads well too."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from .grid import Cell, Panel, Row, Table

SPECIAL = re.compile(r"([\\`*_\[\]|~])")


def escape(text: str) -> str:
    """A name as plain text: no markup of Markdown or HTML, in one line."""
    return html.escape(SPECIAL.sub(r"\\\1", " ".join(text.split())), quote=False)


def text(table: Table) -> str:
    return "\n".join(_panel(panel) for panel in table.panels)


def _panel(panel: Panel) -> str:
    head = [*panel.corners, *(column.title for column in panel.columns)]
    grid = [[escape(one) for one in head]]
    rules: list[int] = []
    for section in panel.sections:
        if not section:
            continue
        rules.append(len(grid))
        before: Sequence[str] = ()
        for row in section:
            grid.append([*_labels(row, before), *map(_cell, row.cells)])
            before = row.labels
    left = len(panel.corners)
    numeric = [False] * left + [column.numeric for column in panel.columns]
    widths = [max(3, *(len(row[i]) for row in grid)) for i in range(len(head))]
    lines = [_line(row, widths, numeric) for row in grid]
    lines.insert(
        1, "| " + " | ".join("-" * (w - 1) + ":" if n else "-" * w for w, n in zip(widths, numeric, strict=True)) + " |"
    )
    notes = [f"- {_mark([mark])} {escape(words)}" if mark else f"- {escape(words)}" for mark, words in panel.notes]
    title, _, rest = panel.caption.partition(". ")
    return "\n".join(
        [f"**{escape(title)}.** {escape(rest)}".rstrip(), "", *lines, "", *notes, *([""] if notes else [])]
    )


def _labels(row: Row, before: Sequence[str]) -> list[str]:
    """Rows that share their first label show it once."""
    shown = [escape(label) for label in row.labels]
    shown[-1] += " (control)" * row.control + _mark(row.marks)
    if len(shown) > 1 and before and before[0] == row.labels[0]:
        shown[0] = ""
    return shown


def _cell(cell: Cell) -> str:
    value = f"**{cell.value}**" if cell.best else escape(cell.value)
    spread = f" {cell.spread}" if cell.interval else cell.spread
    return value + spread + _mark(cell.marks)


def _mark(marks: Sequence[str]) -> str:
    return f"<sup>{' '.join(marks)}</sup>" if marks else ""


def _line(row: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    cells = [one.rjust(w) if n else one.ljust(w) for one, w, n in zip(row, widths, numeric, strict=True)]
    return "| " + " | ".join(cells) + " |"
