"""The tables of a run: CSV with every number, and Markdown, LaTeX and HTML in the look of the paper."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import RunResults

if TYPE_CHECKING:
    from .grid import Table

FOLDER, OTHER = "tables", "other"


class Tables:
    """CSV, Markdown, LaTeX and HTML tables: FID, adherence, reconstruction, every other metric, memory and speed."""

    def render(self, run: RunResults, out: Path, options: ReportOptions) -> Sequence[Path]:
        """Write `out/tables/NAME.{csv,md,tex,html}`; a table without a number is not written.

        Published values have a grid of their own in each file, and the file `NAME_published.csv`.
        """
        from medlord_bench.util.files import write_text

        from . import latex, markdown, tidy

        folder, paths = out / FOLDER, []
        for table in tables(run, options):
            texts = {
                f"{table.name}.csv": tidy.text(table.records),
                f"{table.name}.md": markdown.text(table),
                f"{table.name}.tex": latex.text(table),
                f"{table.name}.html": _html(table),
            }
            if table.published:
                texts[f"{table.name}_published.csv"] = tidy.text(table.published)
            for name, text in texts.items():
                folder.mkdir(parents=True, exist_ok=True)
                write_text(folder / name, text)
                paths.append(folder / name)
        return paths


def tables(run: RunResults, options: ReportOptions) -> Iterator[Table]:
    """Every table that has a number, in the order of the run's scores, memory and speed last."""
    from . import cost, published, quantities, tidy
    from .cells import Facts
    from .grid import Table

    facts = Facts(run, options.planes)
    names = {cost.NAME}
    for name, scores in quantities.by_table(facts).items():
        panels = quantities.panels(name, scores, facts)
        if not panels:
            continue
        theirs = published.records(name) if options.published else []
        if theirs:
            panels.append(published.panel(name, theirs))
        yield Table(_file_name(name, names), panels, tidy.records(scores, facts), [dict(one) for one in theirs])
    panel = cost.panel(facts)
    if not panel.empty:
        yield Table(cost.NAME, [panel], cost.records(facts))


def _file_name(name: str, taken: set[str]) -> str:
    """A name of a third party as the name of a file; no two tables share one."""
    safe = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:60] or OTHER
    found, number = safe, 1
    while found in taken:
        number += 1
        found = f"{safe}_{number}"
    taken.add(found)
    return found


def _html(table: Table) -> str:
    from importlib.resources import files

    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = files(__package__).joinpath("table.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(table=table) + "\n"
