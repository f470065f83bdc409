"""What differs between two runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medlord_bench.contracts.results import CaseRow, ResultsFile, Score, write_results
from medlord_bench.results.diff import diff, differences
from medlord_bench.results.run_results import read_run


def made(root: Path, name: str, values: dict[str, float], protocol: str = "p-1", seed: int = 0) -> Path:
    folder = root / name
    scores = [
        Score(metric="psnr", protocol=protocol, generator=one, dataset="d", value=value, better="higher", n=8)
        for one, value in values.items()
    ]
    rows = [
        CaseRow(metric="psnr", generator=one, case=f"c{i}", patient=f"p{i}", value=value + i)
        for one, value in values.items()
        for i in range(8)
    ]
    text: dict[str, dict[str, object]] = {protocol: {"metric": "psnr", "window": protocol}}
    from medlord_bench.contracts.metrics import Quantity

    quantities = (Quantity(name="psnr", meaning="", better="higher"),)
    write_results(folder / "results", ResultsFile(scores=tuple(scores), protocols=text, quantities=quantities), rows)
    (folder / "run.yaml").write_text(f"dataset: d\nseed: {seed}\nset:\n  a.b: 1\n")
    (folder / "provenance.json").write_text(json.dumps({"medlord_bench": "0.1.0", "packages": {"numpy": f"2.{seed}"}}))
    return folder


def test_settings_versions_and_numbers_with_a_paired_test(tmp_path: Path) -> None:
    a = read_run(made(tmp_path, "a", {"x": 10.0, "y": 5.0, "old": 1.0}))
    b = read_run(made(tmp_path, "b", {"x": 13.0, "y": 5.0, "new": 1.0}, seed=1))
    found = diff(a, b)
    assert [(one.what, one.field, one.first, one.second) for one in found.changes] == [
        ("setting", "seed", "0", "1"),
        ("version", "numpy", '"2.0"', '"2.1"'),
    ]
    assert found.only == [("old", "a"), ("new", "b")]
    x, y = found.numbers
    assert (x.generator, x.first, x.second, x.changed, x.reason) == ("x", 10.0, 13.0, True, "")
    assert x.p == pytest.approx(2 / 2**8), "eight patients, all better"
    assert not y.changed


def test_numbers_of_other_protocols_are_not_tested_and_the_field_is_told(tmp_path: Path) -> None:
    a, b = (read_run(made(tmp_path, name, {"x": 10.0}, protocol=name)) for name in ("p-1", "p-2"))
    found = diff(a, b)
    assert [(one.what, one.field) for one in found.changes] == [("protocol", "psnr.window")]
    assert found.numbers[0].p is None
    assert found.numbers[0].reason == "protocols differ: p-1 and p-2"


def test_absent_fields_are_told_apart_from_null() -> None:
    assert list(differences({"a": None, "b": 1}, {"b": 1, "c": {"d": 2}})) == [
        ("a", "null", "absent"),
        ("c", "absent", '{"d": 2}'),
    ]
    assert list(differences({"a": [1, 2]}, {"a": [1, 3]})) == [("a", "[1, 2]", "[1, 3]")]
