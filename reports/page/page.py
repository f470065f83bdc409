"""The page: one self-contained HTML file per run, for readers with no more than a browser."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from medlord_bench.contracts.metrics import Quantity
from medlord_bench.contracts.results import Score
from medlord_bench.drawing import viewer
from medlord_bench.drawing.style import boxes_for_missing_letters
from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import RunResults
from medlord_bench.util.files import publish

MANY = 8  # names in a heading, or tables of cases, from which they are summed up


class Page:
    """One self-contained HTML page: volumes, scores, training curves, time and memory, provenance."""

    def render(self, run: RunResults, out: Path, options: ReportOptions) -> Sequence[Path]:
        """Write `out/page.html`.

        The page names missing parts of the run. Raises `UserError` if a picture exists but cannot be read, or if
        numbers of different protocols would share a table.
        """
        page = out / "page.html"
        with boxes_for_missing_letters():
            content = _render(_context(run)).encode()
        publish(page, lambda temporary: temporary.write_bytes(content))
        return [page]


def _context(run: RunResults) -> dict[str, Any]:
    from medlord_bench.results.glance import glance

    from .cases import case_tables
    from .conclusions import conclusions
    from .costs import costs
    from .curves import draw_curves
    from .distributions import draw_distributions
    from .forest import forest
    from .montage import draw_montage
    from .pairs import draw_pairs
    from .readers import readers
    from .scores import rows_of, tables
    from .verdicts import verdicts
    from .volumes import offer
    from .warned import doubts, warnings

    scores, quantities = run.scores, run.quantities
    controls = run.results.controls if run.results else ()
    seen = {name: str(one) for name, one in run.results.seen_in_pretraining.items()} if run.results else {}
    first = glance(scores, run.comparisons.comparisons, quantities, controls)
    warned = [*doubts(run), *warnings(scores)]
    script = viewer.script() + _text("page.js")
    return {
        "run": run,
        "conclusions": conclusions(run, first, warned),
        "forest": forest(first, controls, seen) if first.columns else None,
        "offer": offer(run),
        "tables": tables(run.results, run.rows) if run.results else [],
        "warnings": warned,
        "watched": _watched(scores, quantities),
        "verdicts": verdicts(run.comparisons),
        "anatomy": draw_distributions(rows_of(scores, run.rows, quantities), quantities.values()),
        "cases": case_tables(run.rows, quantities),
        "pairs": draw_pairs(run),
        "readers": readers(run),
        "montage": draw_montage(run.montage) if run.montage else None,
        "curves": draw_curves(run.curves),
        "costs": costs(run.steps, run.contestants),
        "unfinished_work": [f"{one.work} ({one.contestant})" for one in costs(run.unfinished, run.contestants)],
        "cautions": _cautions(scores, quantities),
        "meanings": {name: one.meaning for name, one in quantities.items()},
        "css": _text("page.css"),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def _watched(scores: Sequence[Score], quantities: Mapping[str, Quantity]) -> list[str]:
    """What this run checked for; a metric that was not run checked for nothing."""
    ran = {score.metric for score in scores if score.status == "ok"}
    return [one.watches for name, one in quantities.items() if one.watches and name in ran]


def _cautions(scores: Sequence[Score], quantities: Mapping[str, Quantity]) -> list[str]:
    """What to know before reading the columns that the overview has."""
    ran = {score.metric for score in scores if score.status == "ok"}
    found = []
    for one in quantities.values():
        if one.headline and one.name in ran:
            found += [one.caution] if one.caution else []
            if one.read_with and one.read_with not in ran:
                found.append(f"This run has no {one.read_with} to read {one.name} beside.")
    return found


def _render(context: dict[str, Any]) -> str:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    from .words import FILTERS

    loader = FunctionLoader(_text)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=loader
    )
    environment.filters.update(FILTERS, meaning=lambda name: context["meanings"].get(name, ""))
    return environment.get_template("page.html.j2").render(context, MANY=MANY)


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
