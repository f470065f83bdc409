"""What a table holds before it is written in any format: panels of rows and columns, with footnotes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

SEEN, TIED = "†", "≈"
DETECTS = "Difference that one test detects with 80 % power, and n needed to decide the measured difference"


@dataclass(frozen=True)
class Cell:
    """value: the number as text, "-" if it was not run, empty if there is none. spread: the content of the brackets behind
    it. marks: of its footnotes. best: better than all others by the paired tests."""

    value: str = ""
    spread: str = ""
    marks: Sequence[str] = ()
    best: bool = False

    @property
    def interval(self) -> bool:
        """Whether the brackets hold two ends, which take a line of their own in a narrow column."""
        return self.spread.startswith("[")

    @property
    def text(self) -> str:
        return self.value + (f" {self.spread}" if self.interval else self.spread)


@dataclass(frozen=True)
class Column:
    """heads: the parts of its heading, from the general one on, e.g. ("FID", "test"). of: what a column of ranks or of n
    is beside, since its heading alone does not say it."""

    heads: Sequence[str]
    numeric: bool = True
    kind: Literal["value", "rank", "n"] = "value"
    of: str = ""

    @property
    def title(self) -> str:
        return ", ".join(filter(None, (self.of, self.heads[-1]) if self.of else self.heads))


@dataclass(frozen=True)
class Row:
    """labels: its row headings, e.g. data set and quantity. marks: of the last label's footnotes. control: whether it is
    of a control, which is not ranked."""

    labels: Sequence[str]
    cells: Sequence[Cell]
    marks: Sequence[str] = ()
    control: bool = False


@dataclass(frozen=True)
class Panel:
    """One grid. corners: headings of the rows' labels. sections: rows between two rules. notes: (mark, text); a note
    without a mark is of the whole panel."""

    name: str
    caption: str
    corners: Sequence[str]
    columns: Sequence[Column]
    sections: Sequence[Sequence[Row]]
    notes: Sequence[tuple[str, str]] = ()

    @property
    def rows(self) -> list[Row]:
        return [row for section in self.sections for row in section]

    @property
    def empty(self) -> bool:
        return not any(cell.value not in ("", "-") for row in self.rows for cell in row.cells)


@dataclass(frozen=True)
class Table:
    """One file in each format. records: its numbers, one a row of the CSV. published: rows of the paper's values."""

    name: str
    panels: Sequence[Panel]
    records: Sequence[dict[str, object]]
    published: Sequence[dict[str, object]] = ()


@dataclass
class Footnotes:
    """The footnotes of a panel in the order of their marks: a letter for each text, or a fixed sign."""

    letters: dict[str, str] = field(default_factory=dict)
    signed: list[tuple[str, str]] = field(default_factory=list)
    ties: dict[str, None] = field(default_factory=dict)

    def mark(self, text: str) -> str:
        """The letter of a text: a, b, ... z, aa, ab, ..."""
        if text not in self.letters:
            number, letters = len(self.letters), ""
            while number >= 0:
                number, place = divmod(number, 26)
                letters, number = chr(ord("a") + place) + letters, number - 1
            self.letters[text] = letters
        return self.letters[text]

    def sign(self, sign: str, text: str) -> str:
        if (sign, text) not in self.signed:
            self.signed.append((sign, text))
        return sign

    def tie(self, text: str) -> str:
        """The sign of a tie. text: of its column, what would tell; all columns share one footnote."""
        self.ties[text] = None
        return TIED

    @property
    def notes(self) -> list[tuple[str, str]]:
        found = [*((mark, text) for text, mark in self.letters.items()), *sorted(self.signed, key=lambda one: one[0])]
        told = "; ".join(filter(None, self.ties))
        if self.ties:
            found.append((TIED, "tied with best" + (f". {DETECTS}: {told}" if told else "")))
        return found
