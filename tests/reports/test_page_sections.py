"""Warnings, the table at a glance, regions, comparisons, nearest pairs and calibration: what they say and never say."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from medlord_bench.contracts import registry
from medlord_bench.contracts.calibration import FILE, Finding, Record
from medlord_bench.contracts.metrics import quantities_of
from medlord_bench.contracts.results import CaseRow, ResultsFile, Score, notes, write_results
from medlord_bench.reports.page.distributions import draw_distributions
from medlord_bench.reports.page.matrix import NO_SCORE, Matrix, matrices
from medlord_bench.reports.page.page import Page, _watched
from medlord_bench.reports.page.verdicts import verdicts, words
from medlord_bench.reports.page.warned import MAX_TEXTS, warnings
from medlord_bench.results import comparisons
from medlord_bench.results import glance as table
from medlord_bench.results.comparisons import Comparison, ComparisonsFile
from medlord_bench.results.glance import Glance, Place
from medlord_bench.results.pictures import picture_path
from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import read_run
from medlord_bench.results.step_records import record_steps
from medlord_bench.volumes.planes import planes_of, write_planes

PROTOCOL = "fid-imagenet-0a1b2c3d"
QUANTITIES = quantities_of({one.name: registry.load("metrics", one.name) for one in registry.entries("metrics")})


def glance(scores: list[Score], comparisons: Sequence[Comparison], controls: Collection[str] = ()) -> Glance:
    return table.glance(scores, comparisons, QUANTITIES, controls)


def overview(scores: list[Score]) -> Glance:
    return table.overview(scores, QUANTITIES)


def score(**changes: object) -> Score:
    fields: dict[str, object] = {
        "metric": "fid", "protocol": PROTOCOL, "generator": "a", "dataset": "phantom", "reference": "test",
        "value": 41.5, "better": "lower", "n": 16, "floor": 9.875,
    }  # fmt: skip
    return Score.model_validate(fields | changes)


def render(folder: Path) -> tuple[str, str]:
    """The page, and its text; steps are recorded first, as the end of a run does."""
    record_steps(folder, folder.parent.parent)
    html = Page().render(read_run(folder), folder / "report", ReportOptions())[0].read_text(encoding="utf-8")
    body = re.sub(r"<[^>]*>", " ", html.split("</style>")[1])
    return html, " ".join(unescape(body).split())


def fid(name: str, value: float = 1.0, **changes: object) -> Score:
    return score(generator=name, value=value, **changes)


def pair(first: str, second: str, verdict: str = "tie", **changes: object) -> Comparison:
    fields: dict[str, object] = {
        "metric": "fid", "protocol": PROTOCOL, "dataset": "phantom", "reference": "test", "first": first,
        "second": second, "difference": -1.0, "how": "jackknife", "p": 0.5, "p_holm": 0.5, "n": 16, "verdict": verdict,
    }  # fmt: skip
    return Comparison.model_validate(fields | changes)


def places(*found: Comparison, names: str = "abc") -> dict[str, Place]:
    made = glance([fid(name, i) for i, name in enumerate(names)], found)
    return {line.contestant: line.cells[0].place for line in made.lines}


# ----------------------------------------------------------------------------------------------------------- warnings
def test_a_warning_is_told_once_for_all_its_regions_and_quantities() -> None:
    lost = {"warning": "16 of 16 lack it"}
    given = [score(metric=m, region=r, **lost) for m in ("dsc", "nsd") for r in ("aorta", "lungs")]
    (one,) = warnings([*given, score()])
    assert (one.contestant, one.metrics, one.text) == ("a", ["dsc", "nsd"], "aorta, lungs: 16 of 16 lack it")


def test_contestants_are_warned_of_apart_and_many_texts_are_counted() -> None:
    given = [fid(name, warning="upside down") for name in "ab"]
    given += [fid("c", region=f"r{i}", warning=f"{i} lack it") for i in range(MAX_TEXTS + 2)]
    found = warnings(given)
    assert [one.contestant for one in found] == ["a", "b", "c"]
    assert found[2].text.endswith("r5: 5 lack it; and 2 more")


def test_warnings_fold_and_are_counted_at_the_top(bare_folder: Path) -> None:
    put(bare_folder, [fid(f"g{i:02d}", warning=f"warned {i:02d}") for i in range(11)])
    html, text = render(bare_folder)
    verdict = html.split('<section id="verdict"')[1].split("</section>")[0]
    assert "Warnings on g00 (fid), g01 (fid)" in verdict and "g10 (fid): see below." in verdict
    folded = html.split('<details class="warnings"')[1].split("</details>")[0]
    assert "11 warnings" in text and all(f"warned {i:02d}" in folded for i in range(11))


def test_without_warnings_the_page_says_what_was_looked_for(bare_folder: Path) -> None:
    assert "No warnings, but none of the metrics of this run checks for" in render(bare_folder)[1]
    put(bare_folder, [fid("a", metric="axes"), fid("a", metric="copy_rate", status="not_run", value=None)])
    assert "No warnings. Checked for: rotated or mirrored samples." in render(bare_folder)[1]
    assert (
        _watched([fid("a", metric="copy_rate", status="not_run")], QUANTITIES) == []
    )  # what did not run checked for nothing


# ---------------------------------------------------------------------------------------------------------- at a glance
def test_far_apart_intervals_make_nobody_best() -> None:
    far = [fid("a", 1, low=0.9, high=1.1), fid("b", 100, low=99, high=101)]
    assert all(cell.place == Place() for line in glance(far, []).lines for cell in line.cells)


def test_overlapping_intervals_do_not_undo_a_paired_test() -> None:
    near = [fid("a", 1, low=0, high=9), fid("b", 2, low=0, high=9)]
    made = glance(near, [pair("a", "b", "first")])
    assert [line.cells[0].place.word for line in made.lines] == ["best", ""]


def test_a_control_takes_no_place_from_a_generator() -> None:
    won = [pair("a", "b", "first"), pair("c", "a", "first"), pair("c", "b", "first")]
    assert {name: place.word for name, place in places(*won).items()} == {"a": "", "b": "", "c": "best"}
    made = glance([fid(name, i) for i, name in enumerate("abc")], won, {"c"})
    assert [line.cells[0].place.word for line in made.lines] == ["best", "", ""]
    alone = glance([fid("b"), fid("c")], won, {"c"})
    assert [line.cells[0].place.word for line in alone.lines] == ["", ""]


def test_best_is_whom_nobody_beats_and_a_tie_says_what_would_tell() -> None:
    ties = [pair("a", "b", n_needed=120), pair("a", "c", "first"), pair("b", "c", "first")]
    assert places(*ties) == {
        "a": Place("tied with best", (120, 120)), "b": Place("tied with best", (120, 120)), "c": Place()
    }  # fmt: skip
    beaten = [pair("a", "b", "second"), pair("a", "c", "first"), pair("b", "c", "first")]
    assert {name: place.word for name, place in places(*beaten).items()} == {"a": "", "b": "best", "c": ""}


def test_who_was_not_compared_with_all_has_no_place_and_says_so() -> None:
    found = places(pair("a", "b", "first"))  # c has a value and no test
    assert found == {"a": Place(untested=True), "b": Place(), "c": Place(untested=True)}


def test_comparisons_of_another_reference_protocol_or_region_do_not_count() -> None:
    for other in ({"reference": "train"}, {"protocol": "fid-other"}, {"region": "axial"}, {"dataset": "luna16"}):
        found = [pair(*names, "first", **other) for names in ("ab", "ac", "bc")]
        assert set(places(*found).values()) == {Place()}, other


def test_fid_test_and_train_stand_beside_the_copy_rate() -> None:
    given = [fid("a", metric=m, reference=r) for m, r in (("copy_rate", "train"), ("fid", "train"), ("fid", "test"))]
    columns = glance(given, []).columns
    assert [(one.metric, one.reference) for one in columns] == [
        ("fid", "test"), ("fid", "train"), ("copy_rate", "train")
    ]  # fmt: skip


def test_a_run_without_an_audit_says_that_no_copy_rate_would_tell(bare_folder: Path) -> None:
    assert "This run has no copy_rate to read fid beside." in render(bare_folder)[1]
    put(bare_folder, [fid("a"), copy_rate("a")])
    assert "to read fid beside" not in render(bare_folder)[1]


def test_missing_regions_are_those_that_real_volumes_have() -> None:
    lost = {"metric": "rvr_missing", "reference": "train"}
    given = [
        fid("a", 1.0, region="aorta", floor=0.0, **lost),
        fid("a", 0.1, region="lungs", floor=0.1, **lost),  # real volumes lack them as often
        fid("b", 0.0, region="aorta", floor=0.0, **lost),
        fid("c", metric="fid"),
    ]
    made = glance(given, [])
    place = [one.metric for one in made.columns].index("rvr_missing")
    found = {line.contestant: line.cells[place].missing for line in made.lines}
    assert [one.region for one in found["a"] or ()] == ["aorta"]
    assert found["b"] == [] and found["c"] is None  # none missing is not the same as not measured


def test_a_floor_stands_in_the_heading_only_where_all_share_it() -> None:
    shared = glance([fid("a", floor=2.0), fid("b", floor=2.0)], []).columns[0]
    own = glance([fid("a", floor=2.0), fid("b", floor=3.0)], []).columns[0]
    assert (shared.floor, own.floor) == (2.0, None)


def test_what_was_not_run_keeps_its_reason_in_the_cell() -> None:
    made = glance([fid("a"), fid("b", value=None, status="not_run", reason="no samples")], [])
    assert made.lines[1].cells[0].score is None and made.lines[1].cells[0].reason == "no samples"


def test_the_overview_has_every_quantity_the_test_reference_first() -> None:
    given = [fid("a", metric=m, reference=r) for r in ("train", "test") for m in ("fid", "odd")]
    assert [(one.metric, one.reference) for one in overview(given).columns] == [
        ("fid", "test"), ("fid", "train"), ("odd", "test"), ("odd", "train")
    ]  # fmt: skip
    absent = fid("b", value=None, status="not_run", reason="no samples")  # the page says so once, beside the table
    assert [line.contestant for line in overview([*given, absent]).lines] == ["a"]


# ------------------------------------------------------------------------------------------------------------- regions
def dsc(name: str, region: str, **changes: object) -> Score:
    return score(generator=name, metric="dsc", reference="", region=region, floor=None, **changes)


def cells(matrix: Matrix) -> dict[tuple[str, str], object]:
    return {
        (row.region, name): cell.score.value if cell.score else cell.reason
        for row in matrix.rows
        for name, cell in zip(matrix.contestants, row.cells, strict=True)
    }


def test_a_cell_without_a_value_has_the_reason_that_its_score_gave() -> None:
    absent = {"value": None, "status": "not_run"}
    given = [
        dsc("a", "aorta", value=0.9), dsc("a", "lungs, heart", reason="the masks do not know it", **absent),
        dsc("b", "lungs", value=0.8), dsc("b", "", reason="all failed", **absent),
        dsc("c", "aorta", value=0.7),
    ]  # fmt: skip
    (matrix,) = matrices(given)
    assert cells(matrix) == {
        ("aorta", "a"): 0.9, ("aorta", "b"): "all failed", ("aorta", "c"): 0.7,
        ("lungs", "a"): "the masks do not know it", ("lungs", "b"): 0.8, ("lungs", "c"): NO_SCORE,
    }  # fmt: skip


def test_ceilings_stand_beside_the_matrix_only_where_all_share_them() -> None:
    shared = [dsc(name, "aorta", ceiling=0.95) for name in "ab"]
    (matrix,) = matrices(shared)
    assert (matrix.beside, matrix.rows[0].beside) == ("ceiling", 0.95)
    (matrix,) = matrices([shared[0], dsc("b", "aorta", ceiling=0.5)])
    assert (matrix.beside, matrix.rows[0].beside) == ("", None)


def test_a_real_patient_counts_once_beside_the_samples() -> None:
    rows = [
        CaseRow(metric="rvr", split="train", case=case, patient=patient, region="aorta", value=value)
        for case, patient, value in (("c1", "p1", 1.0), ("c2", "p1", 1.0), ("c3", "p1", 1.0), ("c4", "p2", 3.0))
    ] * 3  # every contestant repeats them
    rows.append(CaseRow(metric="rvr", split="test", case="t", region="aorta", value=99.0))
    (matrix,) = matrices([fid("a", metric="rvr", reference="train", region="aorta")], rows)
    assert (matrix.beside, matrix.rows[0].beside) == ("real train", 2.0)


def test_matrices_to_read_first_come_first() -> None:
    given = [fid("a", metric=m, region="aorta") for m in ("rvr_w1", "dsc", "rvr_missing", "rvr")]
    assert [(one.metric, one.first) for one in matrices(given, quantities=QUANTITIES)] == [
        ("dsc", True), ("rvr", True), ("rvr_missing", True), ("rvr_w1", False)
    ]  # fmt: skip


def test_planes_and_bodies_are_no_regions() -> None:
    assert matrices([fid("a", region=region) for region in ("", "axial", "coronal", "sagittal", "body")]) == []


def test_regions_stand_in_a_matrix_and_in_full(bare_folder: Path) -> None:
    put(bare_folder, [fid(name, 0.25, metric="rvr", region="aorta", n=7) for name in "ab"])
    html, text = render(bare_folder)
    assert html.count('<table class="matrix">') == 1
    assert "Every region in full: 2 rows" in text and html.count('class="n value"') == 2


def test_every_real_volume_is_one_dot_however_many_contestants_repeat_it(tmp_path: Path) -> None:
    real = [CaseRow(metric="rvr", split="train", case=f"c{i}", region="aorta", value=i) for i in range(5)]
    own = [CaseRow(metric="rvr", generator=name, case="s0", region="aorta", value=9) for name in "ab"]
    other = CaseRow(metric="dsc", generator="a", case="s0", region="aorta", value=9)
    (picture,) = draw_distributions([own[0], *real, own[1], *real, other], QUANTITIES.values())
    told = "rvr of aorta: real train median 2 of 5; a median 9 of 1; b median 9 of 1"
    assert picture.alt == told and picture.dark
    assert draw_distributions([other], QUANTITIES.values()) == []


def test_cases_of_two_protocols_are_never_drawn_as_one() -> None:
    from medlord_bench.reports.page.scores import rows_of

    row = CaseRow(metric="rvr", generator="a", case="s0", region="aorta", value=9)
    scores = [fid("a", metric="rvr", protocol=protocol) for protocol in ("p1", "p2")]
    assert rows_of(scores[:1], [row], ["rvr"]) == [row]
    assert rows_of(scores, [row], ["rvr"]) == []


# --------------------------------------------------------------------------------------------------------- comparisons
@pytest.mark.parametrize(
    ("one", "told"),
    [
        (pair("a", "b", "first"), "a is better"),
        (pair("a", "b", "second"), "b is better"),
        (pair("a", "b", "equivalent", margin=0.05), "equivalent within 0.05"),
        (pair("a", "b", n_needed=1200), "tie; n of about 1,200 needed to decide"),
        (pair("a", "b"), "tie"),
    ],
)
def test_a_verdict_in_words(one: Comparison, told: str) -> None:
    assert words(one) == told


def test_up_to_six_comparisons_stand_open_and_regions_always_fold(bare_folder: Path) -> None:
    few = [pair("a", f"b{i}", "first", p=0.0125) for i in range(6)]
    regional = pair("a", "b", metric="dsc", region="aorta")
    write_comparisons(bare_folder, *few, regional)
    section = comparisons_of(bare_folder)
    assert section.count("<details>") == 1 and "Region by region, dsc, against test" in section
    assert section.index("a less b5") < section.index("<details>") < section.index("aorta")
    assert "0.0125" in section  # the uncorrected p stands beside Holm's
    write_comparisons(bare_folder, *few, pair("b1", "b2"))
    section = comparisons_of(bare_folder)
    assert section.index("<details>") < section.index("a less b0")
    assert "6 decided, 1 tie" in section


def test_quantities_of_two_protocols_are_compared_apart() -> None:
    found = verdicts(ComparisonsFile(comparisons=(pair("a", "b"), pair("a", "b", protocol="fid-other"))))
    assert [one.protocol for one in found.main] == [PROTOCOL, "fid-other"]
    assert not found.folded


def test_what_could_not_be_compared_says_why(bare_folder: Path) -> None:
    file = ComparisonsFile(not_compared=("dsc of a and b: 3 shared patients, at least 6 are needed",))
    comparisons.write(bare_folder / "results", file)
    section = comparisons_of(bare_folder)
    assert "1 could not be compared" in section and "3 shared patients" in section


# --------------------------------------------------------------------------------------------------------------- pairs
def nearest(name: str, count: int = 6, **changes: object) -> list[CaseRow]:
    """What the audit writes, the nearest first by relative distance, which need not be the order of correlations."""
    where = [{"generator": name, "case": f"sample-{i:05d}", "against": f"case-{i}"} for i in range(count)]
    rows = [CaseRow(metric="nearest_correlation", value=0.5 + i / 100, **one) for i, one in enumerate(where)]
    rows += [CaseRow(metric="relative_distance", value=0.25 + i / 8, **one) for i, one in enumerate(where)]
    return rows + [CaseRow(metric="copy_pair", value=0.5 + i / 100, **one) for i, one in enumerate(where)]


def audited(folder: Path, rows: list[CaseRow], *scores: Score) -> str:
    put(folder, list(scores) or [fid("a")], rows)
    html = render(folder)[0]
    return html.split('<section id="copies">')[1].split("</section>")[0] if 'id="copies"' in html else ""


def copy_rate(name: str, warning: str = "") -> Score:
    note = notes("definition", "a copy is below relative distance 0.333; nominal rate 4.0 %")
    return score(metric="copy_rate", generator=name, reference="train", value=0.5, notes=note, warning=warning)


def test_pairs_whose_files_are_gone_are_named_all_the_same(bare_folder: Path) -> None:
    section = audited(bare_folder, nearest("noise"), copy_rate("noise"))
    assert section.count("no volume to show of 2: missing") == 3
    assert "sample-00000 beside case-0: nearest correlation 0.5, relative distance 0.25" in section


def test_a_pair_that_parts_of_the_volumes_gave_says_so(bare_folder: Path) -> None:
    rows = [row.model_copy(update={"region": "part"}) if row.metric == "copy_pair" else row for row in nearest("a")]
    assert "sample-00000 beside part of case-0: nearest correlation 0.5" in audited(bare_folder, rows, copy_rate("a"))


def test_a_pair_shows_the_sample_beside_its_training_image(bare_folder: Path) -> None:
    picture = bare_folder / picture_path("images", "real", "case-0")
    write_planes(picture, planes_of(np.zeros((8, 8, 8), np.int16)))
    section = audited(bare_folder, nearest("noise:2"), copy_rate("noise:2"))
    assert "2 volumes (sample-00000 (missing), case-0)" in section
    assert section.count("<img") == 1


def test_pairs_stand_in_the_order_of_the_audit_with_its_threshold(bare_folder: Path) -> None:
    section = audited(bare_folder, nearest("a"), copy_rate("a"))
    order = [section.index(f"sample-{i:05d}") for i in range(3)]
    assert order == sorted(order)  # not by correlation, which would turn it round
    assert "Threshold: a copy is below relative distance 0.333; nominal rate 4.0 %." in section
    assert "for unseen real volumes 9.875" in section


def test_who_is_warned_of_comes_first_opened_with_all_pairs(bare_folder: Path) -> None:
    section = audited(bare_folder, nearest("a") + nearest("b"), copy_rate("a"), copy_rate("b", "copies: look at them"))
    assert section.index("b: 6 nearest pairs") < section.index("a: 3 nearest pairs")
    assert section.count("<details open>") == 1 and section.count("<details>") == 1
    assert "copies: look at them" in section


def test_pairs_without_their_score_are_drawn_and_no_audit_leaves_no_section(bare_folder: Path) -> None:
    assert "a: 2 nearest pairs" in audited(bare_folder, nearest("a", 2))
    assert audited(bare_folder, []) == ""


# --------------------------------------------------------------------------------------------------------- calibration
def record(folder: Path, **changes: object) -> str:
    found = [
        Finding(fault="noise", metric="fid", expected="above", seen="955", status="ok"),
        Finding(fault="copycat", metric="copy_rate", expected="at least 0.95", seen="0.5", status="failed"),
        Finding(fault="flip", metric="axes", expected="warned", seen="not run", status="not_checked"),
    ]
    fields = {"trusted": True, "findings": found, "dataset": "phantom", "versions": {}, "date": "2026-01-01"}
    one = Record.model_validate(fields | {"run": "2026-01-01_other"} | changes)
    (folder / "results" / FILE).write_text(one.model_dump_json())
    return render(folder)[0].split('<section id="calibration">')[1].split("</section>")[0]


def test_another_run_s_calibration_is_one_line_and_a_link(bare_folder: Path) -> None:
    section = record(bare_folder)
    assert "1 of 3 expectations hold, 1 do not, 1 could not be checked." in section
    assert "It can be trusted." in section and "<table" not in section
    assert 'href="../../2026-01-01_other/report/page.html"' in section


def test_the_calibration_s_own_page_has_every_expectation_the_failed_first(bare_folder: Path) -> None:
    section = record(bare_folder, run=bare_folder.name, trusted=False)
    assert "href" not in section and section.count("<tr>") == 4
    assert section.index("copycat") < section.index("flip") < section.index("noise")
    assert "It can NOT be trusted." in section


def test_a_stale_calibration_is_not_said_to_hold_now(bare_folder: Path) -> None:
    section = record(bare_folder, stale=("metrics/fid", "segmenters/lungs"))
    assert "It can be trusted." not in section and "It could be trusted on that date." in section
    assert "Changed since then: metrics/fid and segmenters/lungs; calibrate again" in section
    assert "It can NOT be trusted." in record(bare_folder, stale=("metrics/fid",), trusted=False)


def test_a_store_without_calibration_says_how_to_calibrate(bare_folder: Path) -> None:
    assert "Not calibrated in this store: medlord-bench calibrate" in render(bare_folder)[1]


# --------------------------------------------------------------------------------------------------------------- steps
def test_steps_are_summed_by_contestant_and_kind_of_work(bare_folder: Path) -> None:
    plan = json.loads((bare_folder / "plan.json").read_text()) if (bare_folder / "plan.json").exists() else {}
    step = {"kind": "samples", "key": "k", "plugin": "noise", "contestant": "noise"}
    steps = [{"id": f"samples:{i}", **step} for i in range(2)] + [{"id": "x", "kind": "features", "key": "f"}]
    (bare_folder / "plan.json").write_text(json.dumps(plan | {"contestants": ["noise"], "steps": steps}))
    events = [
        {"step": "samples:0", "event": "done", "seconds": 5, "peak_gib": 0.5, "device": "cpu"},
        {"step": "samples:1", "event": "done", "seconds": 7, "peak_gib": 0.75, "device": "cpu"},
        {"step": "x", "event": "start"},
    ]
    (bare_folder / "events.jsonl").write_text("\n".join(map(json.dumps, events)))
    section = render(bare_folder)[0].split('<section id="cost">')[1].split("</section>")[0]
    assert "12.0 s in all, at most 0.75 GiB" in section
    words = " ".join(re.sub("<[^>]+>", " ", section).split())
    assert "all features 1 - - not finished" in words
    assert "noise sampling 2 12.0 s 0.75 GiB done" in words
    assert section.count('<th scope="row">samples:') == 2, "each step by its id, folded"


def test_an_unfinished_run_says_so_at_the_top(bare_folder: Path) -> None:
    steps = [
        {"id": f"{kind}:noise", "kind": kind, "key": "k", "plugin": "noise", "contestant": "noise"}
        for kind in ("samples", "labels")
    ]
    (bare_folder / "plan.json").write_text(json.dumps({"contestants": ["noise"], "steps": steps}))
    (bare_folder / "events.jsonl").write_text(json.dumps({"step": "samples:noise", "event": "done", "seconds": 1}))
    header = " ".join(render(bare_folder)[0].split("<main>")[0].split())
    assert "<strong>Unfinished.</strong> 1 of 2 steps are done; missing: segmenting (noise)." in header
    (bare_folder / "events.jsonl").write_text(
        "\n".join(json.dumps({"step": step["id"], "event": "done", "seconds": 1}) for step in steps)
    )
    assert "Unfinished" not in render(bare_folder)[0]


def memory_of(folder: Path) -> str:
    return render(folder)[0].split('<section id="cost">')[1].split("</section>")[0].partition("<details>")[2]


ON_CARD = {"predicted": 20.25, "allocated": 17.5, "reserved": 18.125, "device": 18.5}
ON_CARD |= {"card": "NVIDIA H100", "evidence": "capped-on-NVIDIA-H100"}


def test_memory_is_shown_predicted_beside_measured_and_the_highest_of_a_steps_shards(bare_folder: Path) -> None:
    steps = [{"id": name, "kind": "samples", "key": "k", "plugin": "noise"} for name in ("a", "b")]
    (bare_folder / "plan.json").write_text(json.dumps({"steps": steps}))
    done = [{"step": "a", "event": "done", "memory": ON_CARD | {"reserved": gib}} for gib in (18.125, 18.75)]
    (bare_folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in done))
    forecast = {"budget_gib": 24, "steps": {"b": {"total_gib": 9.5, "allocated_gib": 8.0}}}
    (bare_folder / "forecast.json").write_text(json.dumps(forecast))
    found = re.sub(r"\s*<[^>]+>\s*", "|", memory_of(bare_folder))
    assert "||a||20.25 GiB||-||17.50 GiB||18.75 GiB||18.50 GiB||NVIDIA H100||capped-on-NVIDIA-H100|" in found
    assert "||b||9.50 GiB||8.00 GiB||-||-||-||-||predicted|" in found
    assert "Resident|" not in found.partition("<thead>")[2] and "|Programs started|" not in found


def test_memory_of_a_step_that_an_earlier_run_did_comes_from_the_store(bare_folder: Path) -> None:
    step = {"id": "a", "kind": "samples", "key": "k", "plugin": "noise"}
    (bare_folder / "plan.json").write_text(json.dumps({"steps": [step]}))
    items = bare_folder.parent.parent / "objects" / "samples" / "k" / "items"
    items.mkdir(parents=True)
    for number, gib in enumerate((1.25, 1.5)):
        memory = {"predicted": None, "resident": gib, "card": "A CPU", "evidence": "measured-on-cpu"}
        (items / f"{number}.json").write_text(json.dumps({"files": {}, "failed": None, "facts": {"memory": memory}}))
    (items / ".tmp-1-2.json").write_text("{")
    found = memory_of(bare_folder)
    assert "1.50 GiB" in found and "1.25 GiB" not in found
    assert "measured-on-cpu" in found and "A CPU" in found
    assert "Predicted</th>" not in found and "Reserved</th>" not in found


def test_a_run_without_facts_of_memory_has_no_table_of_them(run_folder: Path) -> None:
    assert "Memory, predicted and measured" not in render(run_folder)[0]


# ------------------------------------------------------------------------------------------------------------- helpers
def put(folder: Path, scores: list[Score], rows: list[CaseRow] | None = None) -> None:
    write_results(
        folder / "results",
        ResultsFile(scores=tuple(scores), protocols={PROTOCOL: {}}, quantities=tuple(QUANTITIES.values())),
        rows or [],
    )


def write_comparisons(folder: Path, *found: Comparison) -> None:
    comparisons.write(folder / "results", ComparisonsFile(comparisons=found))


def comparisons_of(folder: Path) -> str:
    return render(folder)[0].split('<section id="comparisons">')[1].split("</section>")[0]


def test_the_finished_page_links_only_to_itself_and_to_the_calibration(bare_folder: Path) -> None:
    record(bare_folder)
    write_comparisons(bare_folder, pair("medlord@tiny", "noise", "first"))
    html, _ = render(bare_folder)
    ids = {f"#{name}" for name in re.findall(r' id="([^"]+)"', html)}
    links = set(re.findall(r'<a [^>]*href="([^"]+)"', html))
    assert links - ids == {"../../2026-01-01_other/report/page.html"}
    assert "#comparisons" in ids


# ---------------------------------------------------------------------------------------------- what training took
def test_steps_and_device_time_of_each_stage_stand_beside_the_budget(run_folder: Path) -> None:
    plan = json.loads((run_folder / "plan.json").read_text())
    stages = [("autoencoder", 1500, 300.0), ("latents", None, 9.0), ("diffusion", 2500, 100.5)]
    for stage, steps, seconds in stages:
        detail = {"stage": stage, "steps": steps, "weights": None}
        plan["steps"].append({"id": stage, "kind": "weights", "key": stage, "contestant": "a", "detail": detail})
        items = run_folder.parent.parent / "objects" / "weights" / stage / "items"
        items.mkdir(parents=True)
        trained = {"steps": steps, "seconds": seconds, "device": "cuda:0"}
        (items / "weights.json").write_text(json.dumps({"facts": {"trained": trained}}))
    given = {"stage": "gan", "steps": 10, "weights": "/some/file.pt"}
    plan["steps"].append({"id": "gan", "kind": "weights", "key": "gan", "contestant": "b", "detail": given})
    plan["contestants"] = [{"name": "a"}, {"name": "b"}, {"name": "noise"}]
    grid = {"shape": [64, 64, 32], "spacing": [2.0, 2.0, 4.5], "hu_window": [-1000, 400]}
    plan |= {"native": {"a": {"grid": grid, "fit": "resize"}}, "train_steps": 4000, "train_hours": 1.5}
    (run_folder / "plan.json").write_text(json.dumps(plan))
    _, text = render(run_folder)
    table = text.split("Budget of each contestant:")[1].split("Time and memory")[0]
    assert table.startswith(" 4,000 steps, at most 1.5 h, divided among its stages.")
    assert "a autoencoder 1,500 5 min 00 s 0.2 s cuda:0" in table
    assert "a latents - 9.0 s - cuda:0" in table
    assert "total; works on 64x64x32 voxels of 2 x 2 x 4.5 mm, -1000 to 400 HU, resized there and back" in table
    assert "there and back 4,000 6 min 50 s" in table
    assert "b gan loaded weights, not trained by the bench" in table
    assert "noise" not in table
