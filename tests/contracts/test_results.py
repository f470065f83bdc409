from pathlib import Path

import pytest

from medlord_bench.contracts.results import CaseRow, ResultsFile, Score, read_results, write_results
from medlord_bench.errors import UserError

SCORE = Score(metric="fid", protocol="fid-1", generator="noise", dataset="phantom", value=1.25, low=1.0, high=1.5, n=8)
ROW = CaseRow(metric="psnr", generator="m", case="a", value=30.5)


def test_results_come_back_as_they_were_written(tmp_path: Path) -> None:
    results = ResultsFile(scores=(SCORE,), protocols={"fid-1": {"window": [-1000, 1000]}})
    write_results(tmp_path, results, [ROW])
    assert read_results(tmp_path) == (results, [ROW])


def test_a_run_without_results_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="scores.json: not found"):
        read_results(tmp_path)


def test_a_field_of_another_schema_is_named(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text('{"schema_version": 1, "scores": [], "protocols": {}, "surprise": 1}')
    with pytest.raises(UserError, match="surprise"):
        read_results(tmp_path)
