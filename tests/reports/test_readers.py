"""The answers of a reader study in the report of the run that its volumes came from."""

from __future__ import annotations

from pathlib import Path

from medlord_bench.reading import analysis
from medlord_bench.results.report import ReportOptions
from tests.reading.test_analysis import unblinded


def test_the_report_of_the_run_has_the_ratings(tmp_path: Path, run_folder: Path) -> None:
    from medlord_bench.drawing.style import style
    from medlord_bench.reports.figures.ratings import ratings as drawn
    from medlord_bench.results.run_results import read_run

    study, joined = unblinded(tmp_path, {"real": 0.7, "medlord@tiny": 0.3, "noise": -2.0}, n=4)
    analysis.analyse(study, run_folder)
    with style():
        (figure,) = drawn(read_run(run_folder), ReportOptions())
    table = [dict(zip(figure.columns, row, strict=True)) for row in figure.rows]
    assert {row["source"] for row in table} == {"real", "medlord@tiny", "noise"}
    called = [row for row in table if row["role"] == "verdict" and row["level"] == 1]
    assert len(called) == 6 and all(row["low"] is not None for row in called)
    expected = sum(
        row.level == 2 for row in joined.rows if row.question == "verdict" and row.source == "noise" and not row.repeat
    )
    assert sum(row["count"] for row in called if row["source"] == "noise") == expected
