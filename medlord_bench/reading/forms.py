"""What a reader can print: a form for each case, a table to fill in, and the notes that come with every pack."""

from __future__ import annotations

import csv
import io
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from medlord_bench.util.files import write_text

from .pack import Pack

README, PRINT, TABLE = "README.txt", "form.html", "form.csv"


@cache
def _texts() -> dict[str, Any]:
    return dict(yaml.safe_load(files(__package__).joinpath("texts.yaml").read_text(encoding="utf-8")))


def words(language: str) -> dict[str, str]:
    """Words of forms and questions in the reader's language."""
    return dict(_texts()["words"][language])


def write_forms(folder: Path, pack: Pack) -> None:
    """`README.txt`; of ratings also `form.html` and `form.csv`. Pairs are read on the page alone."""
    if pack.design == "ratings":
        write_text(folder / PRINT, form(pack))
        write_text(folder / TABLE, table(pack))
    write_text(folder / README, readme(pack))


def form(pack: Pack) -> str:
    """A page to print, of ratings: the worded answers once, then a table with the questions for each case."""
    from jinja2 import Environment

    template = files(__package__).joinpath("form.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    return environment.from_string(template).render(pack=pack, words=words(pack.language))


def table(pack: Pack) -> str:
    """CSV, of ratings: a row for each item, numbered as in the form, a column for each answer. Levels are numbers from 1; `cannot` where that is offered."""
    names = [one.name for one in pack.rubric.questions]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["item", "code", *names, "comment"])
    for number, item in enumerate(pack.items):
        writer.writerow([number + 1, *item, *[""] * len(names), ""])
    return text.getvalue()


def readme(pack: Pack) -> str:
    """Use, consent and data notes, in both languages, the reader's first."""
    languages = sorted(("en", "de"), key=lambda one: one != pack.language)
    notes = [str(_texts()["readme"][one]).format(reader=pack.reader, id=pack.id) for one in languages]
    return "\n".join([pack.title, "", *notes] if pack.title else notes)
