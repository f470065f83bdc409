"""The counts of a reading study: `results/ratings.csv` of a run folder, its `analysis/ratings.csv` (docs/reports.md)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from medlord_bench.contracts import FrozenConfig
from medlord_bench.errors import UserError
from medlord_bench.util.files import write_text

FILE = "ratings.csv"
REAL = "real"  # the source of real volumes


class Rating(FrozenConfig):
    """How often a reader gave one answer to the volumes of a source: one row of the file.

    An answer that was never given has a row with count 0, so that a legend is complete.
    """

    reader: str = Field(min_length=1, description="who read, by an alias, e.g. R1")
    source: str = Field(min_length=1, description="the contestant; 'real' for real volumes")
    category: str = Field(min_length=1, description="the question, e.g. realism, or verdict")
    role: Literal["rating", "verdict"] = Field(
        "rating", description="'rating': levels of a scale; 'verdict': whether the reader called the volume real"
    )
    level: NonNegativeInt = Field(
        description="place on the scale, higher is better; of a verdict 1 for real, 0 for synthetic"
    )
    label: str = Field("", description="the words of the level, as the reader saw them")
    count: NonNegativeInt = Field(description="volumes that got this answer")
    n: PositiveInt = Field(description="volumes of the source that the reader answered in this category")

    @model_validator(mode="after")
    def _possible(self) -> Rating:
        if self.count > self.n:
            raise ValueError(f"count {self.count} of n {self.n}")
        if self.role == "verdict" and self.level > 1:
            raise ValueError(f"level {self.level} of a verdict, expected 1 (real) or 0 (synthetic)")
        return self


COLUMNS = tuple(Rating.model_fields)


def read_ratings(folder: Path) -> tuple[Rating, ...]:
    """The ratings in a run's `results/`; none without the file.

    Raises `UserError` naming the file and line of what is not a rating, or counts that do not add up to n.
    """
    path = folder / FILE
    if not path.exists():
        return ()
    try:
        with open(path, newline="", encoding="utf-8") as file:
            table = csv.DictReader(file, strict=True)
            if tuple(table.fieldnames or ()) != COLUMNS:
                raise UserError(f"{path}: columns {table.fieldnames}, expected {', '.join(COLUMNS)}")
            found = tuple(_rating(path, table.line_num, row) for row in table)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a table ({error}); write it again") from None
    _complete(path, found)
    return found


def write_ratings(folder: Path, ratings: Sequence[Rating]) -> None:
    """Write the file that `read_ratings` reads."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(list(one.model_dump().values()) for one in ratings)
    write_text(folder / FILE, out.getvalue())


def _rating(path: Path, line: int, row: dict[str, str]) -> Rating:
    try:
        return Rating.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "row"
        raise UserError(f"{path}, line {line}: {field}: {first['msg']}") from None


def _complete(path: Path, found: Sequence[Rating]) -> None:
    """A reader's answers in a category are one for each volume."""
    groups: dict[tuple[str, str, str], list[Rating]] = {}
    for one in found:
        groups.setdefault((one.reader, one.source, one.category), []).append(one)
    for (reader, source, category), members in groups.items():
        total, sizes = sum(one.count for one in members), {one.n for one in members}
        levels = [one.level for one in members]
        if sizes != {total} or len(set(levels)) < len(levels):
            raise UserError(
                f"{path}: {category} of {source} by {reader}: counts add up to {total}, n is "
                f"{' and '.join(map(str, sorted(sizes)))}; expected each level once, with counts that add up to n"
            )
