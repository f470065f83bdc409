"""`medlord-bench fetch`: licences, lists without a network, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from medlord_bench.cli.fetch import fetch
from medlord_bench.errors import ExitCode, UserError
from medlord_bench.fetching import http, records
from tests.fetching.server import serving
from tests.fetching.test_datasets import put
from tests.fetching.zips import zip_of


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this machine: an address elsewhere is a failed test."""
    allowed = http.Client.check_allowed

    def check(self: http.Client, url: str, local: bool) -> None:
        allowed(self, url, local)
        assert url.startswith("http://127.0.0.1:"), f"a request to {url}"

    monkeypatch.setattr(http.Client, "check_allowed", check)


def call(*words: str) -> tuple[Any, UserError | None]:
    result = CliRunner().invoke(fetch, words)
    error = result.exception if isinstance(result.exception, UserError) else None
    assert error is not None or result.exception is None, result.exc_info
    return result, error


@pytest.mark.parametrize("name", ["luna16", "totalsegmentator", "rider-lung", "imagecas"])
def test_nothing_is_fetched_before_the_licence_is_accepted(name: str, tmp_path: Path) -> None:
    result, error = call("dataset", name, "--to", str(tmp_path))
    assert error is not None and error.code == ExitCode.USAGE
    assert "licence is not accepted" in str(error) and "licence: " in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_offline_lists_the_addresses_and_sends_nothing(tmp_path: Path) -> None:
    result, error = call("dataset", "luna16", "--offline", "--to", str(tmp_path))
    assert error is not None and error.code == ExitCode.MISSING and "--offline forbids" in str(error)
    lines = result.stdout.splitlines()
    assert len(lines) == 11
    assert lines[0] == "https://zenodo.org/api/records/4121926/files/subset9.zip/content  ->  archives/subset9.zip"
    assert "CC BY 4.0" in result.stderr and "888 series of 887 patients" in result.stderr
    result, _ = call("dataset", "rider-lung", "--offline", "--cases", "1")
    assert all(line.startswith("s3://idc-open-data/") for line in result.stdout.splitlines())
    assert list(tmp_path.iterdir()) == []


def test_a_stop_ends_with_75_and_the_command_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medlord_bench.util.stopping.Stopper.stop", lambda self: True)
    _, error = call("dataset", "totalsegmentator-small", "--to", str(tmp_path), "--accept-licence")
    assert error is not None and error.code == ExitCode.REQUEUE and "; go on with: medlord-bench" in str(error)


def test_a_data_set_behind_a_form_names_the_form() -> None:
    _, error = call("dataset", "mmwhs", "--to", "x", "--accept-licence")
    assert error is not None and error.code == ExitCode.MISSING and "consent form" in str(error)


def test_a_fetch_ends_with_the_next_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        content = zip_of({f"Small/s{n:04d}/ct.nii.gz": b"ct" for n in range(4)} | {"Small/meta.csv": b"image_id"})
        put(server, 10047263, {"Totalsegmentator_dataset_small_v201.zip": content})
        monkeypatch.setattr(
            records.Endpoints, "__init__", lambda self: object.__setattr__(self, "zenodo", server.url("/api"))
        )
        result, error = call(
            "dataset", "totalsegmentator-small", "--cases", "2", "--to", str(tmp_path), "--accept-licence"
        )
    assert error is None
    assert result.stdout.startswith(f"totalsegmentator-small: 2 cases, 3 files in {tmp_path}")
    assert result.stdout.endswith(f"read it with --dataset totalsegmentator --data-root {tmp_path}\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fetch.json", "meta.csv", "s0000", "s0001"]
    record = json.loads((tmp_path / "fetch.json").read_text())
    assert record["licence"] == "CC BY 4.0; record 10047263: cc-by-4.0" and record["accepted"]
