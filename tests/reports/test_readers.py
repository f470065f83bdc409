"""The answers of a reader study in the report of the run that its volumes came from."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.text import Text

from medlord_bench.errors import UserError
from medlord_bench.reading import analysis
from medlord_bench.reading.unblind import unblind
from medlord_bench.reading.withdrawal import withdraw
from medlord_bench.results.ratings import Rating, read_ratings
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


def test_volumes_without_a_level_are_a_hatched_rest_with_a_legend() -> None:
    from medlord_bench.drawing.ratings import ratings as drawn
    from medlord_bench.drawing.style import style

    def rows(category: str, counts: tuple[int, int, int]) -> list[Rating]:
        fields = {"reader": "R1", "source": "real", "category": category, "n": sum(counts)}
        return [Rating(**fields, level=level, label=f"level {level}", count=n) for level, n in enumerate(counts, 1)]

    found = [*rows("realism", (1, 2, 7)), *rows("vessels", (1, 2, 3))]
    with style():
        (figure,) = drawn(found, [])
        whole, part = [axes for axes in figure.figure.axes if axes.get_legend()]
    hatched = [[bar.get_width() for bar in axes.patches if bar.get_hatch()] for axes in (whole, part)]
    assert hatched[0] == [] and 4 in hatched[1]  # ten volumes were read, four have no level
    legends = [[text.get_text().strip() for text in axes.get_legend().get_texts()] for axes in (whole, part)]
    assert "cannot assess" in legends[1] and "cannot assess" not in legends[0]
    assert part.get_xlim()[1] == 10
    assert "as the reader saw them" in " ".join(text.get_text() for text in figure.figure.findobj(Text)).replace(
        "\n", " "
    )
