"""`status`: how far a run is, of a finished, a stopped and a missing one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any


def test_a_finished_run_is_finished_in_every_step(bench: Any, finished: Path) -> None:
    answer = json.loads(bench("status", "--store", finished, "--json").out)
    assert answer["finished"] is True
    assert Path(answer["run"]).parent == finished / "runs"
    assert {step["step"]: (step["done"], step["of"]) for step in answer["steps"]}["samples:noise"] == (3, 3)
    assert all(step["done"] == step["of"] for step in answer["steps"])
    lines = bench("status", "--store", finished).out.splitlines()
    assert lines[0].endswith(": finished")
    assert all(line.split()[0] == "done" for line in lines[1:])


def test_a_run_is_found_by_folder_and_by_name(bench: Any, finished: Path) -> None:
    (folder,) = (finished / "runs").iterdir()
    newest = bench("status", "--store", finished).out
    assert bench("status", folder).out == newest
    assert bench("status", folder.name, "--store", finished).out == newest


def test_what_is_missing_is_counted_though_there_are_results(bench: Any, finished: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(finished, store, symlinks=True)
    (folder,) = (store / "runs").iterdir()
    settings = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps(settings | {"store": str(store)}))
    next(store.glob("objects/samples/*/items/sample-00001.json")).unlink()
    answer = json.loads(bench("status", "--store", store, "--json").out)
    assert answer["finished"] is False
    assert {s["step"]: s["done"] for s in answer["steps"] if s["done"] != s["of"]} == {"samples:noise": 2}
    assert "     2/3  samples:noise" in bench("status", "--store", store).out


def test_the_newest_run_is_the_one_started_last(bench: Any, noise: Any, finished: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(finished, store, symlinks=True)
    assert bench("run", *noise, "--seed", "7", "--store", store, "--max-time", "0.001").code == 75
    answer = json.loads(bench("status", "--store", store, "--json").out)
    assert answer["finished"] is False
    (old,) = (finished / "runs").iterdir()
    assert Path(answer["run"]).name != old.name


def test_no_run_and_an_unknown_run_are_exit_2_and_say_what_to_do(bench: Any, finished: Path, tmp_path: Path) -> None:
    done = bench("status", "--store", tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"Error: {tmp_path}: no run yet; start one: medlord-bench run")
    done = bench("status", "yesterday", "--store", finished)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Error: yesterday: not a run folder, nor the name of a run in")


def test_a_damaged_plan_is_named(bench: Any, finished: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(finished, store, symlinks=True)
    (path,) = store.glob("runs/*/plan.json")
    path.write_text(path.read_text()[:100])
    done = bench("status", "--store", store)
    assert (done.code, done.out) == (2, "")
    assert str(path) in done.err and "Traceback" not in done.err


def test_a_store_that_was_moved_is_whole(bench: Any, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "old", symlinks=True)
    (folder,) = (tmp_path / "old" / "runs").iterdir()
    settings = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps(settings | {"store": str(tmp_path / "old")}))
    (tmp_path / "old").rename(tmp_path / "new")
    moved = tmp_path / "new" / "runs" / folder.name
    assert json.loads(bench("status", moved, "--json").out)["finished"] is True
    assert bench("status", "--store", tmp_path / "new").out.splitlines()[0] == f"{moved}: finished"


def test_an_empty_store_and_a_removed_folder_are_named(bench: Any, tmp_path: Path) -> None:
    done = bench("status", "--store", "")
    assert done.code == 2 and "'--store': is empty; expected a folder" in done.err
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f"cd {gone} && rmdir {gone} && {sys.executable} -P -m medlord_bench status"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert done.returncode == 2 and "the current folder was removed; change to another one" in done.stderr
    assert "Traceback" not in done.stderr
