from pathlib import Path

import pytest

from medlord_bench.contracts.results import CASE_COLUMNS, CaseRow, ResultsFile, Score, read_results, write_results
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


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("cases.csv", None, "cases.csv: not found"),
        ("cases.csv", b"", "cases.csv: columns None, expected metric, generator"),
        ("cases.csv", b"\xff\xfe\x00", "cases.csv: damaged"),
        ("cases.csv", ",".join(CASE_COLUMNS).encode() + b"\na,b,,c,,,not a number,\n", "cases.csv: damaged"),
        ("scores.json", b"\xff\xfe\x00", "scores.json: not text"),
        ("scores.json", b"{", "scores.json: the whole file: "),
        ("scores.json", b'{"schema_version": 99, "scores": [], "protocols": {}}', "schema_version 99"),
    ],
)
def test_a_damaged_file_is_one_line_that_says_what_to_do(
    tmp_path: Path, name: str, content: bytes | None, told: str
) -> None:
    write_results(tmp_path, ResultsFile(scores=(), protocols={}), [ROW])
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        read_results(tmp_path)
    assert told in str(error.value) and "run the command again" in str(error.value) and "\n" not in str(error.value)
