"""`clean`: removes what no run refers to, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from medlord_bench.engine import cleaning
from medlord_bench.engine.store import Store


@pytest.fixture
def store(bench: Any, noise: Any, finished: Path, tmp_path: Path) -> Path:
    """The finished run and another one of another seed, which shares its images and their features."""
    shutil.copytree(finished, tmp_path / "store", symlinks=True)
    done = bench("run", *noise, "--seed", "1", "--store", tmp_path / "store", "--no-report")
    assert done.code == 0, done.err
    return tmp_path / "store"


def objects(store: Path) -> set[str]:
    return {str(path.relative_to(store)) for path in (store / "objects").glob("*/*")}


def second(store: Path, finished: Path) -> Path:
    (old,) = (finished / "runs").iterdir()
    return next(path for path in (store / "runs").iterdir() if path.name != old.name)


def test_nothing_that_a_run_refers_to_is_listed_or_removed(bench: Any, store: Path) -> None:
    before = objects(store)
    assert bench("clean", "--store", store).out == ""
    assert json.loads(bench("clean", "--yes", "--store", store, "--json").out)["objects"] == []
    assert objects(store) == before


def test_the_objects_of_a_deleted_run_alone_are_listed_then_removed(
    bench: Any, noise: Any, store: Path, finished: Path
) -> None:
    shutil.rmtree(second(store, finished))
    before, kept = objects(store), objects(finished)
    assert before > kept
    listed = bench("clean", "--store", store)
    assert objects(store) == before, "without --yes nothing is removed"
    assert listed.out.splitlines()[-1] == "nothing removed; to remove: medlord-bench clean --yes"
    answer = json.loads(bench("clean", "--yes", "--store", store, "--json").out)
    assert answer["removed"] is True
    assert {str(Path(row["object"]).relative_to(store)) for row in answer["objects"]} == before - kept
    assert objects(store) == kept
    done = bench("run", *noise, "--store", store, "--no-report")
    assert done.code == 0 and "to do" not in done.err


def test_a_training_that_was_stopped_is_kept_while_its_run_is(bench: Any, tmp_path: Path) -> None:
    words = ("run", "--generator", "medlord@smoke", *bench.phantom, "--no-report", "--store", tmp_path)
    stop = """
import os, signal
real = os.replace
def replace(source, target):
    real(source, target)
    if "/checkpoints/" in str(target):
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace
"""
    longer = (*words, "--set", "generator.autoencoder.steps=20")
    for run in (longer, words):  # the second is shorter than the training is meant to become: it has its own folder
        assert bench(*run, prelude=stop).code == -9
    trainings = {name for name in objects(tmp_path) if "/trainings/" in name}
    assert len(trainings) == 2
    assert bench("clean", "--yes", "--store", tmp_path).code == 0
    assert {name for name in objects(tmp_path) if "/trainings/" in name} == trainings


def test_what_a_killed_writer_left_is_removed_once_it_is_surely_nobodys(bench: Any, store: Path) -> None:
    items = next(store.glob("objects/samples/*/items"))
    old, fresh = items / ".tmp-1-sample-00009.nii.gz", items / ".tmp-2-sample-00009.nii.gz"
    for path in (old, fresh):
        path.write_bytes(b"half")
    long_ago = time.time() - 3 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    answer = json.loads(bench("clean", "--yes", "--store", store, "--json").out)
    assert [row["object"] for row in answer["objects"]] == [str(old)]
    assert fresh.exists() and not old.exists()


def test_an_empty_store_has_nothing_to_clean(bench: Any, tmp_path: Path) -> None:
    done = bench("clean", "--store", tmp_path / "none", "--json")
    assert (done.code, json.loads(done.out)) == (0, {"removed": False, "objects": [], "mib": 0})
    assert not (tmp_path / "none").exists()


def test_what_a_run_asks_for_while_it_is_removed_is_kept(bench: Any, store: Path, finished: Path) -> None:
    folder, place, before = second(store, finished), Store(store), objects(store)
    plan = (folder / "plan.json").read_bytes()
    (folder / "plan.json").unlink()
    unused = [one.path for one in cleaning.unused(place)]
    assert len(unused) > 1
    (folder / "plan.json").write_bytes(plan)  # a run starts now
    assert cleaning.remove(unused, lambda: cleaning.used(place)) == set(unused)
    assert objects(store) == before
    assert json.loads(bench("status", folder, "--json").out)["finished"] is True


def test_hidden_files_that_are_no_temporaries_are_kept(bench: Any, store: Path) -> None:
    item = next((store / "objects" / "weights").rglob("*.json")).parent
    for name in (".lock-weights", ".tmp-1-weights"):
        (item / name).write_text("")
        os.utime(item / name, (1e9, 1e9))
    bench("clean", "--yes", "--store", store)
    assert (item / ".lock-weights").exists() and not (item / ".tmp-1-weights").exists()


# ------------------------------------------------------------------------------------------------------------- policies
def kinds(store: Path) -> set[str]:
    return {path.parent.name for path in (store / "objects").glob("*/*")}


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


GONE = {
    "volumes": {"images", "trainings"},
    "features": {"images", "trainings", "samples", "reconstructions"},
    "scores": {"images", "trainings", "samples", "reconstructions", "features", "states"},
}


@pytest.mark.parametrize("keep", GONE)
def test_a_policy_removes_what_it_says_and_the_results_stay(
    bench: Any, noise: Any, finished: Path, tmp_path: Path, keep: str
) -> None:
    store = tmp_path / "store"
    shutil.copytree(finished, store, symlinks=True)
    (run,) = (store / "runs").iterdir()
    before, results, sizes = kinds(store), content(run / "results"), sum(map(len, content(store / "objects").values()))
    dry = json.loads(bench("clean", "--keep", keep, "--dry-run", "--store", store, "--json").out)
    assert dry["removed"] is False and kinds(store) == before and dry["mib"] > 0
    done = json.loads(bench("clean", "--keep", keep, "--yes", "--store", store, "--json").out)
    assert {**done, "removed": False} == dry
    assert kinds(store) == before - GONE[keep]
    freed = sizes - sum(map(len, content(store / "objects").values()))
    assert freed / 2**20 == pytest.approx(done["mib"], rel=0.2)  # linked files free nothing
    assert content(run / "results") == results
    again = bench("run", *noise, "--store", store, "--no-report")
    assert again.code == 0 and "to do" not in again.err and "removed by --keep" in again.err, again.err
    told = bench("status", "--store", store).out
    assert ": finished" in told and "removed  images" in told
    assert bench("report", "--store", store).code == 0


def test_what_another_run_needs_stays(bench: Any, noise: Any, store: Path, finished: Path) -> None:
    other = second(store, finished)
    (other / "results" / "scores.json").unlink()  # not finished
    bench("clean", "--keep", "scores", "--yes", "--store", store)
    plan = json.loads((other / "plan.json").read_text())
    assert all((store / "objects" / step["kind"] / step["key"]).is_dir() for step in plan["steps"])
    assert not (other / "dropped.json").exists()


def test_a_run_removes_it_itself_once_it_is_finished(bench: Any, noise: Any, tmp_path: Path, finished: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(finished, store, symlinks=True)
    done = bench("run", *noise, "--store", store, "--keep", "features", "--no-report")
    assert done.code == 0 and "--keep features: freed" in done.err, done.err
    assert not kinds(store) & GONE["features"] and {"features", "weights", "scores"} <= kinds(store)


def test_a_policy_and_its_opposite_are_refused_in_one_line(bench: Any, tmp_path: Path) -> None:
    done = bench("clean", "--yes", "--dry-run", "--store", tmp_path)
    assert done.code == 2 and len(done.err.splitlines()) == 1
    assert bench("clean", "--keep", "nothing", "--store", tmp_path).code == 2
