"""`report`: draws again, from results files alone."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np


def copied(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "store", symlinks=True)
    return tmp_path / "store"


def test_the_newest_finished_run_is_drawn_where_none_is_named(
    bench: Any, noise: Any, finished: Path, tmp_path: Path
) -> None:
    store = copied(finished, tmp_path)
    (folder,) = (store / "runs").iterdir()
    (folder / "report" / "page.html").unlink()
    assert bench("run", *noise, "--seed", "7", "--store", store, "--max-time", "0.001").code == 75
    done = bench("report", "--store", store)
    assert (done.code, done.out) == (0, f"{folder / 'report' / 'page.html'}\n")
    assert (folder / "report" / "page.html").stat().st_size > 10_000


def test_a_run_is_drawn_by_folder_or_name_and_answers_in_json(bench: Any, finished: Path, tmp_path: Path) -> None:
    store = copied(finished, tmp_path)
    (folder,) = (store / "runs").iterdir()
    for name in (folder, folder.name):
        answer = json.loads(bench("report", name, "--store", store, "--json").out)
        assert answer["report"] == str(folder / "report")
        assert answer["files"][0] == str(folder / "report" / "page.html")
        assert all(Path(path).exists() for path in answer["files"])


def test_reports_are_chosen_by_name_and_written_where_asked(bench: Any, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere"
    done = bench("report", "--store", finished, "--out", out, "--only", "page")
    assert (done.code, done.out) == (0, f"{out / 'page.html'}\n")
    done = bench("report", "--store", finished, "--out", out, "--only", "pages")
    assert (done.code, done.err) == (2, "Error: --only: unknown report 'pages'; did you mean 'page'?\n")


def test_a_copy_of_the_run_folder_gives_the_same_bytes_where_the_store_is_gone(
    bench: Any, finished: Path, tmp_path: Path
) -> None:
    """A run folder is complete: it can be sent to somebody who has nothing else."""
    store = copied(finished, tmp_path)
    (folder,) = (store / "runs").iterdir()
    copy = tmp_path / "elsewhere" / folder.name
    shutil.copytree(folder, copy, symlinks=True, ignore=shutil.ignore_patterns("report"))
    assert bench("report", folder, "--store", store).code == 0
    whole = {path.relative_to(folder): path.read_bytes() for path in (folder / "report").rglob("*") if path.is_file()}
    shutil.rmtree(store)
    done = bench("report", copy, "--store", tmp_path / "no-store")
    assert done.code == 0, done.err
    drawn = {path.relative_to(copy): path.read_bytes() for path in (copy / "report").rglob("*") if path.is_file()}
    assert len(whole) >= 1
    assert drawn == whole


def test_a_run_without_results_is_not_taken_for_a_finished_one(bench: Any, finished: Path, tmp_path: Path) -> None:
    store = copied(finished, tmp_path)
    (folder,) = (store / "runs").iterdir()
    (folder / "results" / "scores.json").unlink()
    done = bench("report", "--store", store)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"Error: {store}: no finished run; see medlord-bench status\n"
    assert bench("report", folder).code == 0, "named, it is drawn as far as it is"
    assert "this run has no results yet" in (folder / "report" / "page.html").read_text()


def test_a_run_that_is_not_there_is_exit_2(bench: Any, tmp_path: Path) -> None:
    done = bench("report", "yesterday", "--store", tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Error: yesterday: not a run folder")


def test_two_runs_are_told_apart(bench: Any, noise: Any, finished: Path, tmp_path: Path) -> None:
    store = copied(finished, tmp_path)
    (first,) = (store / "runs").iterdir()
    assert bench("run", *noise, "--seed", "7", "--store", store, "--no-report").code == 0
    (second,) = (folder for folder in (store / "runs").iterdir() if folder != first)
    done = bench("report", "diff", first.name, second.name, "--store", store)
    assert done.code == 0, done.err
    assert "setting seed: 0 -> 7" in done.out
    assert done.out.splitlines()[-1].endswith("differ") or "see --all" in done.out.splitlines()[-1]
    answer = json.loads(bench("report", "diff", first.name, second.name, "--store", store, "--json").out)
    assert {"what": "setting", "field": "seed", "first": "0", "second": "7"} in answer["changes"]
    both = bench("report", first.name, second.name, "--store", store, "--json")
    assert both.code == 0, both.err
    assert Path(json.loads(both.out)["report"]).parent == store / "reports"


def test_the_page_is_served_with_whole_volumes(finished: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "medlord_bench",
        "report",
        "--store",
        str(finished),
        "--out",
        str(tmp_path),
        "--only",
        "page",
        "--serve",
    ]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a job in the background starts deaf to Ctrl-C
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        address = process.stdout.readline().strip()
        try:
            page = urlopen(address).read().decode()
            volumes = json.loads(page.split('id="volumes">')[1].split("</script>")[0])["volumes"]
            answer = urlopen(address.replace("page.html", f"volume?id={quote(volumes[0]['id'])}"))
            assert '<html data-full="volume" ' in page
            assert len(answer.read()) == 2 * np.prod(json.loads(answer.headers["X-Volume"])["shape"])
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0


def test_a_shared_report_is_not_served(bench: Any, finished: Path) -> None:
    done = bench("report", "--store", finished, "--share", "--serve")
    assert (done.code, done.err.startswith("Error: --serve shows the real volumes")) == (2, True)


def test_options_that_nothing_uses_are_refused(bench: Any, finished: Path, tmp_path: Path) -> None:
    for extra, words in (
        (["--port", "8000"], "--port 8000 is of --serve, which is not given"),
        (["--only", "page", "--font", "Arial"], "--font Arial is of the figures, which --only leaves out"),
    ):
        done = bench("report", "--store", finished, "--out", tmp_path / "out", *extra)
        assert done.code == 2 and words in done.err
