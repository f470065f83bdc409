"""The answers of a reader study in the report of the run that its volumes came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from medlord_bench.errors import UserError
from medlord_bench.reading import analysis
from medlord_bench.reading.unblind import unblind
from medlord_bench.reading.withdrawal import withdraw
from medlord_bench.results.ratings import read_ratings
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


def test_a_run_of_other_contestants_is_refused_and_nothing_is_written(tmp_path: Path, run_folder: Path) -> None:
    study, _ = unblinded(tmp_path, {"real": 0.7, "good": 0.7}, n=2)
    before = sorted(study.analysis.iterdir())
    with pytest.raises(
        UserError, match=r"none of the study's sources \(good\) is a contestant of it \(medlord@tiny, noise"
    ):
        analysis.analyse(study, run_folder)
    assert before == sorted(study.analysis.iterdir()) and not (run_folder / "results" / "ratings.csv").exists()


def test_a_run_loses_the_ratings_of_a_reader_who_withdrew(tmp_path: Path, run_folder: Path) -> None:
    study, _ = unblinded(tmp_path, {"real": 0.7, "noise": -2.0}, n=3)
    analysis.analyse(study, run_folder)
    assert {one.reader for one in read_ratings(run_folder / "results")} == {"R1", "R2"}
    withdraw(study, "R2", delete=True)
    unblind(study, study.key)
    analysis.analyse(study, run_folder)
    assert {one.reader for one in read_ratings(run_folder / "results")} == {"R1"}
