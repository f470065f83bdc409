r"""Tables as LaTeX: booktabs, compiled by pdflatex in any document with \usepackage{booktabs}, names escaped."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from textwrap import wrap

from .grid import Cell, Panel, Row, Table

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "[": "{[}", "]": "{]}", "*": "{*}", "`": r"\`{}",
    "†": r"$\dagger$", "≈": r"$\approx$", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "µ": r"$\mu$", "≤": r"$\leq$",
    "≥": r"$\geq$", "∞": r"$\infty$", "²": r"$^2$", "³": r"$^3$", "ß": r"\ss{}", "–": r"\textendash{}", "—": r"\textemdash{}", "’": "'",
    "é": r"\'{e}",
}  # fmt: skip
ACCENTS = {"\u0308": '\\"', "\u0301": "\\'", "\u0300": "\\`", "\u0302": "\\^", "\u0303": "\\~", "\u0327": "\\c"}
# (command, size, distance of columns in points), the largest first, and the smaller one of a second line. The size is
# twice the width of a digit in points: small letters are wider than their size says.
SIZES = (("", 10.0, 6), (r"\small", 9.25, 4), (r"\footnotesize", 8.5, 3), (r"\scriptsize", 8.0, 2))
SCRIPT, TINY = (r"\scriptsize", 8.0), (r"\tiny", 6.8)
SMALLER = {10.0: SCRIPT, 9.25: SCRIPT, 8.5: SCRIPT, 8.0: TINY}
ONE_LINE = SIZES[:3]  # in smaller ones the brackets are below the number
LINE_WIDTH = 345.0  # points of a line of \documentclass{article}
MARK = 6  # points between two columns for the marks of a number
MAX_LINES = 36  # rows that a page has room for; several parts that need more are tables of their own
HEAD = 12  # characters of a heading that is not broken into lines


@dataclass(frozen=True)
class Layout:
    """How a grid fits on a line. parts: its columns, in one tabular or several below each other."""

    command: str
    size: float
    gap: int
    two_lines: bool
    parts: Sequence[Sequence[int]]


def escape(text: str) -> str:
    """Text that pdflatex prints: special characters escaped, accents as commands, what it cannot show as "?"."""
    plain = "".join(map(_character, " ".join(text.split())))
    return plain.replace("--", "-{}-").replace(r" \%", r"~\%")


def _character(one: str) -> str:
    if one in SPECIAL:
        return SPECIAL[one]
    if " " <= one <= "~":
        return one
    parts = unicodedata.normalize("NFKD", one)
    base, marks = parts[0], list(parts[1:])
    if not base.isascii() or not base.isprintable():
        return "?"
    plain = SPECIAL.get(base, base)
    known = [ACCENTS[mark] for mark in marks if mark in ACCENTS]
    if known:
        return f"{known[0]}{{{plain}}}"
    return plain + "".join(SPECIAL.get(mark, mark) for mark in marks if mark.isascii() and mark.isprintable())


def label(name: str) -> str:
    """A name for \\label: letters, digits and hyphens."""
    return "tab:" + (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "table")


def text(table: Table) -> str:
    labels: dict[str, int] = {}
    parts = []
    for panel in table.panels:
        own = label(panel.name)
        labels[own] = labels.get(own, 0) + 1
        parts.append(_panel(panel, own + (f"-{labels[own]}" if labels[own] > 1 else "")))
    return "% \\usepackage{booktabs}\n" + "\n".join(parts)


def _panel(panel: Panel, name: str) -> str:
    layout = _layout(panel)
    notes = [
        (rf"\textsuperscript{{{escape(mark)}}}~" if mark else "") + escape(words) + r"\par"
        for mark, words in panel.notes
    ]
    controls = (
        " Below the first rule: controls, which are not ranked." if any(row.control for row in panel.rows) else ""
    )
    high = len(layout.parts) * len(panel.rows) * (2 if layout.two_lines else 1) > MAX_LINES
    floats = [[part] for part in layout.parts] if high else [layout.parts]
    found = []
    for place, parts in enumerate(floats, start=1):
        caption = panel.caption + controls + (f" Part {place} of {len(floats)}." if len(floats) > 1 else "")
        below = [r"\par\smallskip", r"\begin{minipage}{\linewidth}\footnotesize\raggedright", *notes, r"\end{minipage}"]
        found += [
            r"\begin{table}[htbp]",
            r"\centering",
            rf"\caption{{{escape(caption)}}}",
            rf"\label{{{name if place == 1 else f'{name}-part-{place}'}}}",
            r"\smallskip" + layout.command,
            rf"\setlength{{\tabcolsep}}{{{layout.gap}pt}}",
            "\n\\par\\medskip\n".join("\n".join(_tabular(panel, part, layout)) for part in parts),
            *(below if notes and place == len(floats) else []),
            r"\end{table}",
            "",
        ]
    return "\n".join(found)


def _tabular(panel: Panel, part: Sequence[int], layout: Layout) -> Iterator[str]:
    align = "l" * len(panel.corners)
    for i in part:
        align += "r" if panel.columns[i].numeric else "l"
        if _marked(panel, i):  # marks take no width: the space between the two columns is wider
            align += rf"@{{\hskip {2 * layout.gap + MARK}pt}}"
    yield rf"\begin{{tabular}}{{{align}}}"
    yield r"\toprule"
    yield from _heads(panel, part)
    for section in panel.sections:
        if not section:
            continue
        yield r"\midrule"
        before: Sequence[str] = ()
        for row in section:
            yield from _row(row, part, before, layout)
            before = row.labels
    yield r"\bottomrule"
    yield r"\end{tabular}"


# -------------------------------------------------------------------------------------------------------------- widths
def _layout(panel: Panel) -> Layout:
    """The largest letters that fit on a line; else the smallest, with the columns in several parts."""
    columns = range(len(panel.columns))
    intervals = any(cell.interval for row in panel.rows for cell in row.cells)
    for two_lines, sizes in ((False, () if intervals else ONE_LINE), (True, SIZES)):
        for command, size, gap in sizes:
            layout = Layout(command, size, gap, two_lines, [list(columns)])
            if _points(panel, columns, layout) <= LINE_WIDTH:
                return layout
    layout = Layout(*SIZES[2], intervals, [])
    return replace(layout, parts=_parts(panel, layout))


def _parts(panel: Panel, layout: Layout) -> list[list[int]]:
    """Columns in as few tabulars as fit. Ranks and n stay beside their number, and columns of one general heading
    together where they can."""
    atoms: list[list[int]] = []
    for i, column in enumerate(panel.columns):
        if column.kind == "value" or not atoms:
            atoms.append([i])
        else:
            atoms[-1].append(i)
    groups = [list(own) for _, own in groupby(atoms, lambda atom: panel.columns[atom[0]].heads[0])]

    def fits(part: Sequence[int]) -> bool:
        return _points(panel, part, layout) <= LINE_WIDTH

    parts: list[list[int]] = [[]]
    for group in groups:
        if parts[-1] and not fits(parts[-1] + sum(group, [])):
            parts.append([])
        for atom in group:
            if parts[-1] and not fits(parts[-1] + atom):
                parts.append([])
            parts[-1] += atom
    if all(len(group) == 1 for group in groups):  # nothing holds neighbours together: parts of equal length
        long = -(-len(atoms) // len(parts))
        parts = [sum(atoms[at : at + long], []) for at in range(0, len(atoms), long)]
    return parts


def _marked(panel: Panel, column: int) -> bool:
    return any(row.cells[column].marks for row in panel.rows)


def _points(panel: Panel, part: Sequence[int], layout: Layout) -> float:
    """The width of a tabular of these columns."""
    labels = [
        max(map(_ems, [corner, *(row.labels[i] for row in panel.rows)])) for i, corner in enumerate(panel.corners)
    ]
    width = layout.size * sum(labels) + 2 * layout.gap * (len(labels) + len(part))
    for i in part:
        head = max((_ems(line) for line in _broken(panel.columns[i].heads[-1])), default=0.0)
        width += MARK * _marked(panel, i)
        width += max([layout.size * head, *(_cell_points(row.cells[i], layout) for row in panel.rows)])
    return width


def _ems(text: str) -> float:
    """The width of a text over the size of its letters."""
    return sum(0.75 if one.isupper() or one in "@mw%" else 0.5 for one in text)


def _cell_points(cell: Cell, layout: Layout) -> float:
    if layout.two_lines:
        return max(layout.size * _ems(cell.value), SMALLER[layout.size][1] * _ems(cell.spread))
    return layout.size * _ems(cell.value + cell.spread)


def _broken(head: str) -> list[str]:
    """A heading in lines of about `HEAD` characters, broken between words."""
    return wrap(head, HEAD, break_long_words=False, break_on_hyphens=False)


# --------------------------------------------------------------------------------------------------------------- lines
def _head(head: str) -> str:
    lines = [escape(line) for line in _broken(head)]
    stacked = r" \\ ".join(lines)
    return rf"\shortstack{{{stacked}}}" if len(lines) > 1 else stacked


def _heads(panel: Panel, part: Sequence[int]) -> Iterator[str]:
    """Lines of the heading; neighbours of one heading share a cell with a rule below."""
    depth = max((len(panel.columns[i].heads) for i in part), default=1)
    for level in range(depth):
        last = level == depth - 1
        names = [one[level] if level < len(one := panel.columns[i].heads) else "" for i in part]
        if not any(names) and not last:
            continue
        cells, rules, at = [], [], len(panel.corners) + 1
        for (name, _), group in groupby(zip(names, part if last else [0] * len(part), strict=True)):
            wide = len(list(group))
            side = "c" if wide > 1 or panel.columns[part[at - len(panel.corners) - 1]].numeric else "l"
            shown = _head(name) if wide == 1 else escape(name)
            cells.append(rf"\multicolumn{{{wide}}}{{{side}}}{{{shown}}}" if name else " & ".join([""] * wide))
            if name and not last and wide > 1:
                rules.append(rf"\cmidrule(lr){{{at}-{at + wide - 1}}}")
            at += wide
        yield " & ".join([*(escape(one) if last else "" for one in panel.corners), *cells]) + r" \\" + "".join(rules)


def _row(row: Row, part: Sequence[int], before: Sequence[str], layout: Layout) -> Iterator[str]:
    labels, cells = [escape(one) for one in row.labels], [row.cells[i] for i in part]
    labels[-1] += _marks(row.marks)
    if len(labels) > 1 and before and before[0] == row.labels[0]:
        labels[0] = ""
    yield " & ".join([*labels, *(_cell(cell, layout.two_lines) for cell in cells)]) + r" \\"
    if layout.two_lines and any(cell.spread for cell in cells):
        small = SMALLER[layout.size][0]
        spreads = [rf"{{{small} {_number(cell.spread)}}}" if cell.spread else "" for cell in cells]
        yield " & ".join([*([""] * len(labels)), *spreads]) + r" \\[2pt]"


def _cell(cell: Cell, two_lines: bool) -> str:
    value = _number(cell.value)
    value = rf"\textbf{{{value}}}" if cell.best else value
    return value + ("" if two_lines else _number(cell.spread)) + _marks(cell.marks)


def _number(text: str) -> str:
    """A cell's text with minus signs before numbers."""
    return re.sub(r"-(?=\d)(?<!\d-)", "$-$", escape(text))


def _marks(marks: Sequence[str]) -> str:
    """Marks take no width, so that numbers stay aligned."""
    return rf"\rlap{{\textsuperscript{{{escape(' '.join(marks))}}}}}" if marks else ""
