"""The tables of a run: who is bold, what a dash means, which columns there are, and the numbers behind them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from medlord_bench.contracts.metrics import Headline, Quantity
from medlord_bench.contracts.results import CaseRow, Score
from medlord_bench.reports.tables.tables import Tables
from medlord_bench.results.comparisons import Comparison
from medlord_bench.results.efforts import Effort, StageEffort
from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import RunResults
from medlord_bench.results.step_records import Memory, StepRecord
from tests.reports.tables_data import records, run, written

FID = Quantity(
    name="fid", title="FID", meaning="distance", better="lower", decimals=2,
    headline=(Headline(rank=1, reference="test"),),
)  # fmt: skip
DSC = Quantity(name="dsc", title="DSC", meaning="overlap", better="higher", decimals=2, spread="iqr")


def fid(who: str, value: float | None = 1.0, **fields: object) -> Score:
    common = {
        "metric": "fid", "generator": who, "dataset": "phantom", "protocol": "fid-imagenet-0a", "reference": "test",
        "value": value, "better": "lower", "n": 16, "n_reference": 17, "floor": 0.5, "floor_n": 8,
    }  # fmt: skip
    return Score.model_validate(common | fields)


def pair(first: str, second: str, verdict: str = "tie", **fields: object) -> Comparison:
    common = {
        "metric": "fid", "protocol": "fid-imagenet-0a", "dataset": "phantom", "reference": "test", "first": first,
        "second": second, "difference": -1.0, "how": "", "p": 0.5, "p_holm": 0.5, "n": 16, "verdict": verdict,
    }  # fmt: skip
    return Comparison.model_validate(common | fields)


def render(given: RunResults, out: Path, **options: bool) -> list[str]:
    return sorted(path.name for path in Tables().render(given, out, ReportOptions(**options)))


def markdown(out: Path, name: str = "fid") -> str:
    return (out / "tables" / f"{name}.md").read_text()


# ---------------------------------------------------------------------------------------------------------- who is best
def test_only_the_paired_tests_make_a_number_bold(tmp_path: Path) -> None:
    far = [fid("a", 1.0, low=0.9, high=1.1), fid("b", 90.0, low=89.0, high=91.0)]
    render(run(far, [FID]), tmp_path / "untested")
    assert "**1.00**" not in markdown(tmp_path / "untested")
    render(run(far, [FID], [pair("a", "b", "first")]), tmp_path / "tested")
    text = markdown(tmp_path / "tested")
    assert "**1.00** [0.90, 1.10]" in text and "**90" not in text
    assert r"\textbf{1.00}" in (tmp_path / "tested" / "tables" / "fid.tex").read_text()
    assert "<b>1.00</b>" in (tmp_path / "tested" / "tables" / "fid.html").read_text()
    assert [one["verdict"] for one in records(tmp_path / "tested", "fid")] == ["best", ""]


def test_ties_are_marked_with_what_would_tell_them_apart(tmp_path: Path) -> None:
    tie = pair("a", "b", n_needed=120, detectable=2.5)
    render(run([fid("a"), fid("b", 2.0)], [FID], [tie]), tmp_path)
    text = markdown(tmp_path)
    assert "1.00<sup>≈</sup>" in text and "2.00<sup>≈</sup>" in text and "**1.00" not in text
    assert text.count("tied with best") == 1
    assert "Difference that one test detects with 80 % power, and n needed to decide the measured difference: " in text
    assert "FID: 2.5, n of about 120" in text
    (first, _) = records(tmp_path, "fid")
    assert [first[name] for name in ("verdict", "detectable_low", "n_needed_high")] == ["tied with best", "2.5", "120"]


def test_controls_stand_below_and_are_never_best(tmp_path: Path) -> None:
    won = [pair("real", "a", "first"), pair("real", "b", "first"), pair("a", "b", "first")]
    render(run([fid("real", 0.1), fid("a"), fid("b", 2.0)], [FID], won, controls=["real"]), tmp_path)
    (grid,) = written(tmp_path, "fid")
    assert [row[0] for row in grid[1:]] == ["a", "b", "real (control)", "Real against real"]
    assert "**1.00**" in markdown(tmp_path) and "**0.10" not in markdown(tmp_path)


def test_the_floor_is_a_row_of_its_own(tmp_path: Path) -> None:
    render(run([fid("a"), fid("b", 2.0)], [FID]), tmp_path)
    (grid,) = written(tmp_path, "fid")
    assert grid[-1] == ["Real against real", "0.50", ""]
    assert "Real against real: 8 a side" in markdown(tmp_path)


# -------------------------------------------------------------------------------------------------------------- columns
def test_protocols_never_share_a_column(tmp_path: Path) -> None:
    other = {"protocol": "fid-radimagenet-1b"}
    scores = [fid("a", 1.0), fid("a", 7.0, **other), fid("b", 2.0, reference="train"), fid("b", 8.0, **other)]
    render(run(scores, [FID]), tmp_path)
    (grid,) = written(tmp_path, "fid")
    assert grid[0] == ["Contestant", "FID, test, imagenet", "FID, test, radimagenet", "FID, train, imagenet", "n"]
    assert grid[1:3] == [["a", "1.00", "7.00", "", "16"], ["b", "", "8.00", "2.00", "16"]]


def test_equal_labels_of_protocols_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    render(run([fid("a"), fid("a", 7.0, protocol="fid-imagenet-1b")], [FID]), tmp_path)
    assert written(tmp_path, "fid")[0][0] == ["Contestant", "FID, fid-imagenet-0a", "FID, fid-imagenet-1b", "n"]


def test_planes_come_on_request(tmp_path: Path) -> None:
    given = run([fid("a"), fid("a", 3.0, region="axial")], [FID])
    render(given, tmp_path / "mean")
    assert len(records(tmp_path / "mean", "fid")) == 1
    render(given, tmp_path / "planes", planes=True)
    assert written(tmp_path / "planes", "fid")[0][0] == ["Contestant", "FID", "FID, axial", "n"]


def test_a_dash_is_only_for_what_was_not_run(tmp_path: Path) -> None:
    scores = [fid("a"), fid("b", None, status="not_run", reason="no | samples"), fid("c", 3.0, reference="train")]
    render(run(scores, [FID]), tmp_path)
    (grid,) = written(tmp_path, "fid")
    assert {row[0]: row[1:3] for row in grid[1:4]} == {"a": ["1.00", ""], "b": ["-", ""], "c": ["", "3.00"]}
    assert r"<sup>a</sup> not run: no \| samples" in markdown(tmp_path)


def test_regions_stand_across_and_many_of_them_down(tmp_path: Path) -> None:
    def dsc(who: str, region: str) -> Score:
        fields = {
            "metric": "dsc",
            "protocol": "adherence-p-1",
            "region": region,
            "quartiles": (0.5, 0.7),
            "floor": None,
        }
        return fid(who, 0.6, better="higher", **fields)

    few = [dsc(who, f"r_{i}") for who in "ab" for i in range(3)]
    render(run(few, [DSC]), tmp_path / "few")
    assert written(tmp_path / "few", "adherence")[0][:2] == [
        ["Contestant", "r 0", "r 1", "r 2"], ["a", *["0.60(0.20)"] * 3],
    ]  # fmt: skip
    many = [dsc(who, f"r_{i}") for who in "ab" for i in range(30)]
    render(run(many, [DSC]), tmp_path / "many")
    (grid,) = written(tmp_path / "many", "adherence")
    assert grid[:2] == [["Region", "a", "b"], ["r 0", "0.60(0.20)", "0.60(0.20)"]] and len(grid) == 31


def test_real_training_volumes_stand_below_the_regions(tmp_path: Path) -> None:
    rvr = Quantity(name="rvr", title="RVR", meaning="ratio")
    scores = [fid(who, 0.25, metric="rvr", region="aorta", protocol="rvr-p-1", floor=None, better="") for who in "ab"]
    rows = [
        CaseRow(metric="rvr", split="train", case=f"c{i}", region="aorta", value=v)
        for i, v in enumerate((0.1, 0.2, 0.4))
    ]
    render(run(scores, [rvr], rows=rows), tmp_path)
    assert written(tmp_path, "rvr")[0][-1] == ["Real training volumes", "0.2000"]


def test_declared_decimals_leave_digits_to_small_values(tmp_path: Path) -> None:
    render(run([fid("a", 0.00123, floor=None), fid("b", 0.0045, floor=None)], [FID]), tmp_path)
    assert [row[1] for row in written(tmp_path, "fid")[0][1:]] == ["0.0012", "0.0045"]


# ------------------------------------------------------------------------------------------------------ which tables
def test_a_third_partys_metric_gets_a_table_and_no_file_of_another(tmp_path: Path) -> None:
    own = Quantity(name="toy", meaning="an own number", table="../Memory Speed", unit="HU")
    given = run([fid("a", metric="toy", protocol="toy-1"), fid("a", metric="bare", protocol="x/y-1")], [own])
    assert render(given, tmp_path) == sorted(
        f"{name}.{kind}" for name in ("memory_speed_2", "x_y") for kind in ("csv", "md", "tex", "html")
    )
    assert written(tmp_path, "memory_speed_2")[0][0] == ["Contestant", "toy (HU)", "n"]
    assert not list(tmp_path.parent.glob("Memory*"))


def test_a_table_without_a_number_is_not_written(tmp_path: Path) -> None:
    absent = fid("a", None, status="not_run", reason="no samples")
    assert render(run([absent], [FID]), tmp_path) == [] and not (tmp_path / "tables").exists()
    assert render(run([], []), tmp_path) == []


def test_what_no_contestant_could_be_measured_in_is_said_below(tmp_path: Path) -> None:
    kid = Quantity(name="kid", title="KID", meaning="", better="lower")
    absent = fid("a", None, metric="kid", status="not_run", reason="too few samples")
    render(run([fid("a"), absent], [FID, kid]), tmp_path)
    assert written(tmp_path, "fid")[0][0] == ["Contestant", "FID", "n"]
    assert "- KID not run: too few samples" in markdown(tmp_path)


def test_seen_in_pretraining_stands_in_every_table(tmp_path: Path) -> None:
    region = fid("a", 0.6, metric="dsc", region="aorta", protocol="adherence-p-1")
    steps = [step("a", "samples", seconds=8.0, items=4)]
    seen = {"a": "seen in pretraining: trained on lidc-idri"}
    render(run([fid("a"), fid("b", 2.0), region], [FID, DSC], steps=steps, seen=seen), tmp_path)
    for name in ("fid", "adherence", "memory_speed"):
        assert "<sup>†</sup> a: seen in pretraining: trained on lidc-idri" in markdown(tmp_path, name), name
        assert records(tmp_path, name)[0]["seen_in_pretraining"] == seen["a"]
        assert r"$\dagger$" in (tmp_path / "tables" / f"{name}.tex").read_text()
    assert "a<sup>†</sup>" in markdown(tmp_path) and "b<sup>" not in markdown(tmp_path)


def test_unknown_patients_stand_in_every_caption_and_row(tmp_path: Path) -> None:
    why = "patients unknown: which scans are of one patient is not published"
    region = fid("a", 0.6, metric="dsc", region="aorta", protocol="adherence-p-1")
    render(run([fid("a"), region], [FID, DSC], patients_unknown=why), tmp_path)
    for name in ("fid", "adherence"):
        assert ". Patients unknown." in markdown(tmp_path, name)
        assert records(tmp_path, name)[0]["patients_unknown"] == why
    render(run([fid("a"), region], [FID, DSC]), tmp_path / "known")
    assert "Patients unknown" not in markdown(tmp_path / "known", "fid")


# ------------------------------------------------------------------------------------------------------ memory and speed
def step(who: str, kind: str, **fields: object) -> StepRecord:
    common = {
        "name": f"{kind}:{who}", "kind": kind, "plugin": who, "contestant": who, "state": "done", "seconds": None,
        "peak_gib": None, "device": "cuda:0",
    }  # fmt: skip
    return StepRecord.model_validate(common | fields)


def test_memory_and_speed(tmp_path: Path) -> None:
    card = {"predicted": 20.0, "device": 18.5, "evidence": "measured-on-24GB"}
    steps = [
        step("a", "weights", memory=Memory(**card)),
        step("a", "weights", memory=Memory(predicted=21.25, reserved=19.0, evidence="measured-on-24GB")),
        step("a", "samples", seconds=30.0, items=12, memory=Memory(predicted=9.0, evidence="predicted")),
        step("c", "samples", seconds=1.0, items=4),
    ]
    stages = (StageEffort("ae", 10, 100.0, "cuda", False), StageEffort("dm", 10, 250.5, "cuda", False))
    given = run([fid("a"), fid("c")], [FID], steps=steps, efforts=[Effort("a", "", stages)], controls=["c"])
    render(given, tmp_path)
    (grid,) = written(tmp_path, "memory_speed")
    assert grid[0] == [
        "Contestant", "Training, predicted peak (GiB)", "Training, measured peak (GiB)", "Training, device time (s)",
        "Sampling, predicted peak (GiB)", "Sampling, time a volume (s)", "Evidence",
    ]  # fmt: skip
    assert grid[1] == ["a", "21.25", "19.00", "350", "9.00", "2.50", "measured on 24GB, predicted"]
    assert grid[2][:1] + grid[2][5:6] == ["c (control)", "0.25"]
    found = {
        (one["contestant"], one["phase"], one["quantity"]): one["value"] for one in records(tmp_path, "memory_speed")
    }
    assert found["a", "training", "device time"] == "350.5" and found["c", "sampling", "time a volume"] == "0.25"


# ----------------------------------------------------------------------------------------------------------- the files
def test_csv_has_every_number_at_full_precision(tmp_path: Path) -> None:
    value = 0.1 + 0.2
    render(run([fid("a", value, low=-value, failed=2, notes=[{"kind": "counts", "text": "x"}])], [FID]), tmp_path)
    (one,) = records(tmp_path, "fid")
    assert (one["value"], one["low"], one["failed"], one["notes"]) == (repr(value), repr(-value), "2", "x")
    assert one["protocol"] == "fid-imagenet-0a" and one["high"] == ""


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    given = run([fid("a"), fid("b", 2.0)], [FID], [pair("a", "b")], steps=[step("a", "samples", seconds=1.0, items=1)])
    for name in ("one", "two"):
        render(given, tmp_path / name, published=True)
    files = sorted((tmp_path / "one" / "tables").iterdir())
    assert len(files) == 9
    assert all(path.read_bytes() == (tmp_path / "two" / "tables" / path.name).read_bytes() for path in files)


@pytest.mark.parametrize("heavy", ["torch", "pandas"])
def test_tables_need_no(heavy: str) -> None:
    code = f"import sys, medlord_bench.reports.tables.tables as t; from medlord_bench.results import ranks; print({heavy!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
