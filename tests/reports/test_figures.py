"""Figures of numbers: what they draw, and that they can be printed, read by anybody, and made again."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medlord_bench.contracts.calibration import Finding, Record
from medlord_bench.contracts.metrics import Headline, Quantity
from medlord_bench.contracts.results import CaseRow, ResultsFile, Score
from medlord_bench.drawing.files import Drawn
from medlord_bench.drawing.style import MM, WIDTHS_MM, style
from medlord_bench.errors import UserError
from medlord_bench.reports.figures.calibration import calibration
from medlord_bench.reports.figures.curves import curves
from medlord_bench.reports.figures.distributions import distributions
from medlord_bench.reports.figures.doses import doses
from medlord_bench.reports.figures.fid_n import fid_n
from medlord_bench.reports.figures.figures import Figures
from medlord_bench.reports.figures.forest import forest
from medlord_bench.reports.figures.memory import memory
from medlord_bench.reports.figures.ratings import ratings
from medlord_bench.results.comparisons import Comparison, ComparisonsFile
from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import Curve, RunResults, read_run
from medlord_bench.results.step_records import Memory, StepRecord

HOSTILE = r"$x_1$\frac{a}{b}<script>&%#~^" + "=long-name" * 12
NAMES = ("alpha", "beta", HOSTILE, "=cmd|' /C calc'!A0", "noise")
RVR = Quantity(name="rvr", meaning="", distribution="region / all voxels")
FID = Quantity(name="fid", meaning="", better="lower", headline=(Headline(reference="test"),))
OPTIONS = ReportOptions()


def score(generator: str, value: float | None, **changes: object) -> Score:
    fields: dict[str, object] = {"metric": "fid", "protocol": "fid-1", "dataset": "d", "reference": "test", "n": 16}
    return Score.model_validate(
        {**fields, "better": "lower", "generator": generator, "value": value, "low": None if value is None else value - 2,
         "high": None if value is None else value + 2, "floor": 3.0, **changes}
    )  # fmt: skip


def compared(first: str, second: str, verdict: str) -> Comparison:
    fields = {"metric": "fid", "protocol": "fid-1", "dataset": "d", "reference": "test", "how": "", "n": 8}
    return Comparison.model_validate(
        {**fields, "first": first, "second": second, "difference": 1, "p": 0.5, "p_holm": 0.5, "verdict": verdict}
    )


def case_rows(
    n: int, names: tuple[str, ...] = NAMES, regions: tuple[str, ...] = ("aorta", "lungs")
) -> Iterator[CaseRow]:
    rng = np.random.default_rng(0)
    for region in regions:
        for case in range(40):
            value = float(rng.normal(4e-3, 5e-4))
            yield CaseRow(metric="rvr", split="train", case=f"patient-{case}-0123456789", region=region, value=value)
        for name in names:
            for case in range(n):
                value = 0.0 if case < 3 and region == "aorta" else float(rng.normal(4e-3, 5e-4))
                yield CaseRow(metric="rvr", generator=name, case=f"sample-{case:05d}", region=region, value=value)


def training(steps: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"step": step, "loss": 50 / step, "split": "train"} for step in range(1, steps + 1)]
    return rows + [{"step": step, "loss": 60 / step, "split": "val"} for step in range(10, steps + 1, 10)]


def step(name: str, **changes: object) -> StepRecord:
    memory = Memory.model_validate(
        {"predicted": 12.0, "reserved": 10.0, "card": "card", "evidence": "measured-on-24GB", **changes}
    )
    return StepRecord(
        name=name, kind="weights", plugin="p", contestant="alpha", state="done", seconds=1, peak_gib=1, device="cuda",
        memory=memory,
    )  # fmt: skip


FINDINGS = (
    Finding(fault="noise", metric="fid", expected="above the holdout's", seen="957.1 [935.5, 979.1] floor 69, 70.75 [59.76, 82.66] floor 69", status="ok"),
    Finding(fault="noise", metric="rvr_missing $a_1$", expected="at least 0.9", seen="0.5 [0.4, 0.6] floor 0 warned", status="failed"),
    Finding(fault="flip", metric="axes", expected="a warning", seen="no samples", status="not_checked"),
    Finding(fault="simulated", metric="an interval", expected="covers the expectation in 93% to 98%", seen="94.7% (92.4% to 96.3%)", status="ok"),
)  # fmt: skip


def results(n: int = 12) -> ResultsFile:
    scores = [score(name, 10.0 + 5 * place) for place, name in enumerate(NAMES[:4])] + [score("noise", 400.0)]
    infinite = [
        score(name, 8.0 + 5 * place, metric="fid_infinity", low=None, high=None, floor=None,
              points=((18, 10.0 + 5 * place), (12, 11.0 + 5 * place), (9, 12.0 + 5 * place)))
        for place, name in enumerate(NAMES)
    ]  # fmt: skip
    rvr = [score(name, 1.0, metric="rvr", protocol="rvr-1", region="aorta", reference="train") for name in NAMES]
    return ResultsFile(
        scores=(*scores, *infinite, *rvr),
        protocols={"fid-1": {}, "rvr-1": {}},
        controls=("noise",),
        quantities=(FID, Quantity(name="fid_infinity", meaning=""), RVR),
    )


RATINGS = """reader,source,category,role,level,label,count,n
R1,real,realism,rating,1,not a CT,0,10
R1,real,realism,rating,2,doubtful,2,10
R1,real,realism,rating,3,$as_real$,8,10
R1,alpha,realism,rating,1,not a CT,3,10
R1,alpha,realism,rating,2,doubtful,3,10
R1,alpha,realism,rating,3,$as_real$,4,10
R1,real,verdict,verdict,1,real,9,10
R1,real,verdict,verdict,0,synthetic,1,10
R1,alpha,verdict,verdict,1,real,8,10
R1,alpha,verdict,verdict,0,synthetic,2,10
R2,real,realism,rating,3,$as_real$,10,10
R2,alpha,realism,rating,1,not a CT,10,10
R2,real,verdict,verdict,1,real,10,10
R2,alpha,verdict,verdict,1,real,0,10
R2,alpha,verdict,verdict,0,synthetic,10,10
"""


@pytest.fixture
def run(run_folder: Path) -> RunResults:
    """A run with everything that figures of numbers show; its contestants have names that are hard to print."""
    (run_folder / "results" / "ratings.csv").write_text(RATINGS)
    found = read_run(run_folder)
    comparisons = [
        compared("alpha", "beta", "tie"),
        compared("alpha", HOSTILE, "first"),
        compared("beta", HOSTILE, "first"),
    ]
    comparisons += [compared(name, NAMES[3], "first") for name in NAMES[:3]]
    return replace(
        found,
        contestants=NAMES,
        results=results(),
        rows=list(case_rows(12)),
        comparisons=ComparisonsFile(comparisons=tuple(comparisons)),
        curves=[Curve(name, "autoencoder", training(100), 0) for name in NAMES],
        steps=[step("train:alpha"), step("samples:alpha", predicted=3, reserved=4, evidence="measured-on-other"), step("x", predicted=None)],
        calibration=Record(trusted=False, findings=FINDINGS, dataset="d", versions={}, date="", run=""),
        montage=None,
    )  # fmt: skip


def one(drawn: Iterator[Drawn]) -> Drawn:
    found = list(drawn)
    assert len(found) == 1
    return found[0]


def records(drawn: Drawn) -> list[dict[str, Any]]:
    return [dict(zip(drawn.columns, row, strict=True)) for row in drawn.rows]


def test_every_figure_of_numbers_is_written_in_all_formats(run: RunResults, tmp_path: Path) -> None:
    written = Figures().render(run, tmp_path, OPTIONS)
    names = {path.stem for path in written}
    assert names == {"rvr", "ratings", "curves", "fid_n", "memory", "calibration", "forest"}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {path.name for path in written}
    assert len(written) == 4 * len(names)


def test_the_same_results_give_the_same_bytes(run: RunResults, tmp_path: Path) -> None:
    first, second = (Figures().render(run, tmp_path / name, OPTIONS) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_fonts_are_embedded_whole_letters_and_files_name_no_time(run: RunResults, tmp_path: Path) -> None:
    for path in Figures().render(run, tmp_path, OPTIONS):
        content = path.read_bytes()
        if path.suffix == ".pdf":
            assert b"/Type3" not in content, path
            assert b"/FontFile2" in content, path
            assert b"/CreationDate" not in content, path
        assert b"dc:date" not in content, path


def test_widths_are_those_of_journals_and_no_text_is_tiny(run: RunResults) -> None:
    from matplotlib.text import Text

    with style():
        for draw in (distributions, ratings, curves, fid_n, memory, calibration, forest):
            for drawn in draw(run, OPTIONS):
                assert round(drawn.figure.get_figwidth() / MM) in WIDTHS_MM, drawn.name
                assert drawn.figure.get_figheight() / MM <= 245, drawn.name
                texts = [text for text in drawn.figure.findobj(Text) if text.get_text().strip()]
                assert min(text.get_fontsize() for text in texts) >= 5, drawn.name
                assert not any(text.get_parse_math() for text in texts), drawn.name
                assert not any("mathdefault" in text.get_text() for text in texts), drawn.name


def test_nothing_leaves_the_sheet_whatever_the_names(run: RunResults) -> None:
    with style():
        for draw in (distributions, ratings, curves, fid_n, memory, forest):
            for drawn in draw(run, OPTIONS):
                drawn.figure.canvas.draw()
                box = drawn.figure.get_tightbbox()
                width, height = drawn.figure.get_size_inches()
                assert box.x0 >= -0.02 and box.x1 <= width + 0.02, (drawn.name, box)
                assert box.y0 >= -0.02 and box.y1 <= height + 0.02, (drawn.name, box)


def test_a_run_without_anything_has_no_figures(run: RunResults, tmp_path: Path) -> None:
    empty = replace(
        run,
        results=None,
        rows=[],
        curves=[],
        steps=[],
        calibration=None,
        origins=[replace(run.origins[0], folder=tmp_path)],
    )
    assert Figures().render(empty, tmp_path / "out", OPTIONS) == []


def test_figures_that_a_report_no_longer_has_are_removed_and_other_files_stay(run: RunResults, tmp_path: Path) -> None:
    folder = tmp_path / "figures"
    folder.mkdir()
    for name in ("montage.png", "montage-2.csv", "montage-of-mine.png", "notes.txt", "rvr.png"):
        (folder / name).write_text("old")
    Figures().render(run, tmp_path, OPTIONS)
    left = {path.name for path in folder.iterdir() if path.read_bytes() == b"old"}
    assert left == {"montage-of-mine.png", "notes.txt"}


def test_the_user_s_own_matplotlib_settings_neither_matter_nor_change(run: RunResults, tmp_path: Path) -> None:
    import matplotlib

    before = Figures().render(run, tmp_path / "a", OPTIONS)
    with matplotlib.rc_context({"font.size": 20, "axes.grid": True, "lines.linewidth": 9}):
        after = Figures().render(run, tmp_path / "b", OPTIONS)
        assert matplotlib.rcParams["font.size"] == 20
    assert [path.read_bytes() for path in before] == [path.read_bytes() for path in after]


def test_numbers_beside_a_figure_are_no_formulas(run: RunResults, tmp_path: Path) -> None:
    Figures().render(run, tmp_path, OPTIONS)
    with open(tmp_path / "figures" / "forest.csv", newline="") as file:
        names = {row["contestant"] for row in csv.DictReader(file)}
    assert "'=cmd|' /C calc'!A0" in names
    assert HOSTILE in names


def test_an_unknown_font_is_one_line_with_near_ones(run: RunResults, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--font: 'DejaVu Sand' is not installed; near it: .*DejaVu Sans") as caught:
        Figures().render(run, tmp_path, ReportOptions(font="DejaVu Sand"))
    assert "\n" not in str(caught.value)


def test_another_font_is_used_whatever_its_case(run: RunResults, tmp_path: Path) -> None:
    paths = Figures().render(run, tmp_path, ReportOptions(font="dejavu serif"))
    content = next(path for path in paths if path.name == "forest.pdf").read_bytes()
    assert b"DejaVuSerif" in content


def test_distributions_show_range_violins_points_and_missing_regions(run: RunResults) -> None:
    from matplotlib.collections import PolyCollection

    with style():
        drawn = one(distributions(run, OPTIONS))
    aorta, lungs = drawn.figure.axes[:2]
    values = [row["value"] for row in records(drawn) if row["source"] == "real train" and row["region"] == "aorta"]
    low, high = np.quantile(values, [0.025, 0.975])
    band = aorta.patches[0].get_extents().transformed(aorta.transData.inverted())
    assert (band.y0, band.y1) == pytest.approx((1000 * low, 1000 * high))
    assert aorta.get_ylabel() == "region / all voxels (×10⁻³)"
    violins = [one for one in aorta.collections if isinstance(one, PolyCollection)]
    assert len(violins) == 1 + len(NAMES)
    inside = violins[1].get_paths()[0].vertices[:, 1]
    assert inside.min() == pytest.approx(0), "cut at the data"
    assert [text.get_text() for text in aorta.get_xticklabels()] == ["1", *(f"{place}\n∅3" for place in range(2, 7))]
    assert [text.get_text() for text in lungs.get_xticklabels()] == [str(place) for place in range(1, 7)]
    points = [line for line in aorta.lines if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in points] == [12] * len(NAMES), "not for the 40 real volumes"


@pytest.mark.parametrize("n", [1, 2, 3, 25])
def test_distributions_of_few_or_equal_values(run: RunResults, tmp_path: Path, n: int) -> None:
    rows = [row.model_copy(update={"value": 0.0}) if row.generator == "beta" else row for row in case_rows(n)]
    assert Figures().render(replace(run, rows=rows), tmp_path, OPTIONS)


def test_shared_distributions_have_no_ids_of_real_cases(run: RunResults) -> None:
    with style():
        open_, shared = (records(one(distributions(run, ReportOptions(share=share)))) for share in (False, True))
    assert {row["case"] for row in open_ if row["source"] == "real train"} == {f"patient-{case}" for case in range(40)}
    assert {row["case"] for row in shared if row["source"] == "real train"} == {""}
    assert [row["value"] for row in open_] == [row["value"] for row in shared]


def test_training_curves_have_the_record_its_mean_and_validation(run: RunResults) -> None:
    with style():
        drawn = one(curves(run, OPTIONS))
    axes = drawn.figure.axes[0]
    assert [len(line.get_xdata()) for line in axes.lines] == [100, 100, 10]
    assert axes.get_yscale() == "log"
    assert axes.get_title(loc="left") == "alpha\nautoencoder"
    first = records(drawn)[0]
    assert (first["contestant"], first["split"], first["step"], first["value"]) == ("alpha", "train", 1, 50)


def test_long_trainings_are_thinned_and_many_fill_pages(run: RunResults) -> None:
    many = [Curve(f"g{place}", "s", training(3000 if place == 0 else 5), 0) for place in range(23)]
    with style():
        pages = list(curves(replace(run, curves=many), OPTIONS))
    assert [page.name for page in pages] == ["curves", "curves-2"]
    assert max(len(line.get_xdata()) for line in pages[0].figure.axes[0].lines) <= 400


def test_the_forest_shows_values_ties_floor_and_controls(run: RunResults) -> None:
    with style():
        drawn = one(forest(run, OPTIONS))
    found = {row["contestant"]: row for row in records(drawn)}
    assert [found[name]["place"] for name in NAMES] == ["tied with best", "tied with best", "", "", ""]
    axes = drawn.figure.axes[0]
    fills = {round(line.get_ydata()[0]): line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"}
    assert [fills[row] == "white" for row in range(4)] == [False, False, True, True]
    (arrow,) = [line for line in axes.lines if line.get_marker() == ">"]
    assert arrow.get_ydata()[0] == 4, "noise, far beyond the others"
    assert "400" in [text.get_text() for text in axes.texts]
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert band.x1 == pytest.approx(3)


def test_the_extrapolation_passes_through_its_value_at_infinity(run: RunResults) -> None:
    with style():
        drawn = one(fid_n(run, OPTIONS))
    axes = drawn.figure.axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["∞", "18", "12", "9"]
    at_infinity = [line.get_ydata()[0] for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert at_infinity == [8, 13, 18, 23, 28]
    assert [row["distance"] for row in records(drawn) if row["contestant"] == "alpha"] == [10, 11, 12, 8]


def test_doses_are_lines_over_the_number_that_a_region_begins_with(run: RunResults) -> None:
    dosed = [Quantity(name=f"dose_{k}x", meaning="", title=f"{k}x", curve="real (%)") for k in (0, 1)]
    made = [
        score(name, 0.5 + 0.001 * percent + 0.1 * k, metric=f"dose_{k}x", region=f"{percent:g} % of real", reference="")
        for name in NAMES[:2]
        for k in (0, 1)
        for percent in (100, 12.5, 50)
    ]
    assert run.results is not None
    changed = run.results.model_copy(update={"scores": tuple(made), "quantities": tuple(dosed)})
    with style():
        drawn = one(doses(replace(run, results=changed), OPTIONS))
    panels = [axes for axes in drawn.figure.axes if axes.axison]
    assert [axes.get_title("left") for axes in panels] == ["alpha", "beta"]
    assert [text.get_text() for text in panels[0].get_xticklabels()] == ["12.5", "50", "100"]
    lines = [line for line in panels[0].lines if len(line.get_xdata()) == 3]
    assert [
        line.get_ydata() == pytest.approx([0.5125 + 0.1 * k, 0.55 + 0.1 * k, 0.6 + 0.1 * k])
        for k, line in enumerate(lines)
    ] == [True, True]
    assert len(panels[0].lines) == 2 + 6, "an interval for each point"
    assert [row["dose"] for row in records(drawn)][:3] == [12.5, 50, 100]
    with style():
        assert not list(doses(run, OPTIONS))


def test_memory_is_drawn_for_steps_with_both_numbers(run: RunResults) -> None:
    with style():
        drawn = one(memory(run, OPTIONS))
    points = records(drawn)
    assert [(row["predicted_gib"], row["measured_gib"], row["evidence"]) for row in points] == [
        (12, 10, "measured-on-24GB"),
        (3, 4, "measured-on-other"),
    ]
    markers = [line.get_marker() for line in drawn.figure.axes[0].lines if line.get_marker() not in ("None", None)]
    assert len(set(markers)) == 2


def test_calibration_shows_what_was_expected_and_seen(run: RunResults) -> None:
    with style():
        drawn = one(calibration(run, OPTIONS))
    found = records(drawn)
    assert [(row["value"], row["low"], row["limit"]) for row in found[:2]] == [(957.1, 935.5, 69), (70.75, 59.76, 69)]
    assert (found[-1]["value"], found[-1]["high"]) == (pytest.approx(0.947), pytest.approx(0.963))
    markers = [line.get_marker() for line in drawn.figure.axes[0].lines]
    assert {"o", "X", "s"} <= set(markers)
    assert "rvr missing $a 1$" in [text.get_text() for text in drawn.figure.axes[0].texts]


def test_ratings_are_stacked_with_counts_and_the_share_called_real_has_its_interval(run: RunResults) -> None:
    with style():
        drawn = one(ratings(run, OPTIONS))
    realism, verdict = drawn.figure.subfigs[0].axes[:2]
    bars = [(round(bar.get_y() + bar.get_height() / 2), bar.get_width()) for bar in realism.patches]
    assert sorted(bars) == [(0, 2), (0, 8), (1, 3), (1, 3), (1, 4)], "real first"
    assert sorted(text.get_text() for text in realism.texts) == ["2", "3", "3", "4", "8"]
    ends = [line.get_xdata() for line in verdict.lines if len(line.get_xdata()) == 2]
    assert ends[1] == pytest.approx([49.0, 94.3], abs=0.1), "8 of 10"
    called = [row for row in records(drawn) if row["called_real"] is not None]
    assert [(row["reader"], row["source"], row["called_real"]) for row in called] == [
        ("R1", "real", 0.9), ("R1", "alpha", 0.8), ("R2", "real", 1), ("R2", "alpha", 0),
    ]  # fmt: skip
    assert len(drawn.figure.subfigs) == 2, "a block per reader"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("R1,real,realism,rating,2,doubtful,2,10", "R1,real,realism,rating,2,doubtful,3,10", "counts add up to 11"),
        ("realism,rating,1,not a CT,0,10", "realism,rating,1,not a CT,11,10", "line 2"),
        ("realism,rating,1,not a CT,0,10", "realism,guess,1,not a CT,0,10", "role"),
        ("reader,source", "who,source", "columns"),
    ],
)
def test_a_ratings_file_that_makes_no_sense_is_named(run: RunResults, old: str, new: str, told: str) -> None:
    path = run.origins[0].folder / "results" / "ratings.csv"
    path.write_text(RATINGS.replace(old, new, 1))
    with style(), pytest.raises(UserError, match=f"ratings.csv.*{re.escape(told)}"):
        list(ratings(run, OPTIONS))


def test_figures_of_a_run_folder_on_disk(run_folder: Path, tmp_path: Path) -> None:
    """Nothing is needed but the folder; its montage has rows without a kind, from an earlier release."""
    montage = json.loads((run_folder / "results" / "montage.json").read_text())
    assert all("kind" not in row for row in montage["rows"])
    names = {path.stem for path in Figures().render(read_run(run_folder), tmp_path, OPTIONS)}
    assert names == {"curves", "forest"}
