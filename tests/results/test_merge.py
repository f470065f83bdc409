"""Several runs in one report: compared anew, never across protocols."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from medlord_bench.contracts.metrics import Quantity
from medlord_bench.contracts.results import CaseRow, Replicates, ResultsFile, Score, write_replicates, write_results
from medlord_bench.errors import UserError
from medlord_bench.results.merge import read_runs
from medlord_bench.results.run_results import read_run

FID = Quantity(name="fid", meaning="distance", better="lower")
PSNR = Quantity(name="psnr", meaning="likeness", better="higher")
TEXT: dict[str, object] = {"metric": "fid", "data": {"counts": {"test": 8}}, "slices": 4}
PATIENTS = [f"p{i}" for i in range(8)]


def run(
    root: Path, name: str, contestants: dict[str, float], text: dict[str, object] = TEXT, controls: tuple[str, ...] = ()
) -> Path:
    """A run folder with a FID per contestant, its replicates, and a PSNR per patient."""
    folder = root / name
    scores, replicates, rows = [], [], []
    for contestant, value in contestants.items():
        rng = np.random.default_rng(int(value * 10))
        fields = {"generator": contestant, "dataset": "phantom", "better": "lower", "reference": "test"}
        scores.append(Score(metric="fid", protocol="fid-x", value=value, n=8, **fields))
        scores.append(
            Score(metric="psnr", protocol="psnr-x", value=value, n=8, **fields | {"better": "higher", "reference": ""})
        )
        left_out = {"samples": rng.normal(value, 0.01, 8), "real": rng.normal(value, 0.01, 8)}
        replicates.append(
            Replicates(
                metric="fid", protocol="fid-x", value=value, **fields,
                samples={f"s{i}": float(v) for i, v in enumerate(left_out["samples"])},
                real=dict(zip(PATIENTS, map(float, left_out["real"]), strict=True)),
            )
        )  # fmt: skip
        rows += [
            CaseRow(metric="psnr", generator=contestant, case=p, patient=p, value=value + i / 100)
            for i, p in enumerate(PATIENTS)
        ]
    rows.append(CaseRow(metric="rvr", split="test", case="real-0", value=0.5))
    protocols = {"fid-x": text, "psnr-x": {"metric": "psnr"}}
    results = ResultsFile(
        scores=tuple(scores), protocols=protocols, controls=controls, quantities=(FID, PSNR),
        seen_in_pretraining={one: f"seen in {name}" for one in contestants if one == "ours"},
    )  # fmt: skip
    write_results(folder / "results", results, rows)
    write_replicates(folder / "results", replicates)
    plan = {"contestants": [{"name": one} for one in contestants], "dataset": {"plugin": "phantom"}, "steps": []}
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder


def test_two_runs_are_compared_with_each_other(tmp_path: Path) -> None:
    a, b = run(tmp_path, "day_a_11", {"ours": 10.0}), run(tmp_path, "day_b_22", {"theirs": 20.0})
    merged = read_runs([a, b])
    assert merged.name == "day_a_11 + day_b_22"
    assert merged.contestants == ["ours", "theirs"]
    assert {(one.metric, one.first, one.second) for one in merged.comparisons.comparisons} == {
        ("fid", "ours", "theirs"),
        ("psnr", "ours", "theirs"),
    }
    assert [row.case for row in merged.rows if row.split == "test"] == ["real-0"], "the shared real volumes once"


def test_merged_runs_give_the_comparisons_of_one_run_with_all_contestants(tmp_path: Path) -> None:
    one = read_runs([run(tmp_path, "whole", {"a": 10.0, "b": 10.2, "c": 30.0})])
    parts = [run(tmp_path, "left", {"a": 10.0, "b": 10.2}), run(tmp_path, "right", {"c": 30.0})]
    merged = read_runs(parts)
    from medlord_bench.results.comparisons import compare

    assert merged.comparisons == compare(one.scores, one.rows, one.replicates, one.quantities)
    assert len(merged.comparisons.comparisons) == 6


def test_a_contestant_with_equal_scores_is_taken_once_and_another_of_its_name_is_told_apart(tmp_path: Path) -> None:
    a = run(tmp_path, "day_a_11", {"ours": 10.0, "noise": 99.0}, controls=("noise",))
    b = run(tmp_path, "day_b_22", {"ours": 12.0, "noise": 99.0}, controls=("noise",))
    merged = read_runs([a, b])
    assert merged.contestants == ["ours", "noise", "ours (22)"]
    assert merged.results is not None and merged.results.controls == ("noise",)
    seen = {name: str(one) for name, one in merged.results.seen_in_pretraining.items()}
    assert seen == {"ours": "seen in day_a_11", "ours (22)": "seen in day_b_22"}
    assert merged.picture("ours (22)", "samples", "s0") == b / "results/pictures/samples/ours/s0.safetensors"
    assert merged.picture("ours", "images", "c0", real=True) == a / "results/pictures/images/real/c0.safetensors"


def test_one_run_named_twice_is_one_run(tmp_path: Path) -> None:
    a = run(tmp_path, "day_a_11", {"ours": 10.0})
    assert read_runs([a, a]).name == "day_a_11"


def test_other_protocols_are_an_error_naming_the_field_and_the_command(tmp_path: Path) -> None:
    a = run(tmp_path, "day_a_11", {"ours": 10.0})
    b = run(tmp_path, "day_b_22", {"theirs@tiny": 20.0}, text={**TEXT, "data": {"counts": {"test": 6}}})
    with pytest.raises(UserError) as error:
        read_runs([a, b])
    assert str(error.value).startswith("day_b_22: metric fid: protocol field data.counts.test is 6, but 8 in day_a_11;")
    assert str(error.value).endswith(f"medlord-bench run {a}/run.yaml --generator theirs@tiny")


def test_a_run_without_results_cannot_be_merged(tmp_path: Path) -> None:
    a, b = run(tmp_path, "day_a_11", {"ours": 10.0}), run(tmp_path, "day_b_22", {"theirs": 20.0})
    shutil.rmtree(b / "results")
    with pytest.raises(UserError, match="day_b_22: has no results yet; run it to its end, or leave it out"):
        read_runs([a, b])


def test_damaged_replicates_are_an_error_naming_the_file(tmp_path: Path) -> None:
    a = run(tmp_path, "day_a_11", {"ours": 10.0})
    (a / "results" / "replicates.json").write_text('{"replicates": [{"metric": 1}]}')
    with pytest.raises(UserError, match="replicates.json: field 'replicates.0"):
        read_run(a)
