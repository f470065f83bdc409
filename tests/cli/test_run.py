"""`run`: what it answers, what it refuses and how, and that nothing published is lost to a bad disk or a rival."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from medlord_bench.plugins.datasets.phantom.dataset import PhantomConfig, PhantomDataset
from medlord_bench.volumes.io import write_volume

MEDLORD = ("run", "--generator", "medlord@smoke", "--no-report")
PHANTOM = ("--dataset", "phantom")
DATA = {"pccta": ("ImageCAS", "MM-WHS"), "luna16": ("subset0..subset9", "seg-lungs-LUNA16")}


def one_line(done: Any) -> str:
    """The error of a command that has nothing to answer: one line, without a traceback."""
    assert done.out == "", done.out
    assert "Traceback" not in done.err
    errors = [line for line in done.err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and done.err.rstrip().endswith(errors[0]), done.err
    return str(errors[0])


# ------------------------------------------------------------------------------------------------------------ answers
def test_the_answer_is_the_path_of_the_page_and_nothing_else(bench: Any, noise: Any, finished: Path) -> None:
    done = bench("run", *noise, "--store", finished)
    (page,) = (finished / "runs").glob("*/report/page.html")
    assert (done.code, done.out) == (0, f"{page}\n")


def test_the_json_answer_names_run_results_and_report(bench: Any, noise: Any, finished: Path) -> None:
    answer = json.loads(bench("run", *noise, "--store", finished, "--json").out)
    assert (Path(answer["run"]) / "plan.json").exists()
    assert (Path(answer["results"]) / "scores.json").exists()
    assert all(Path(path).exists() for path in answer["report"])


def test_quiet_says_nothing_while_it_goes_well(bench: Any, noise: Any, finished: Path) -> None:
    assert "already done" in bench("run", *noise, "--store", finished).err
    assert bench("--quiet", "run", *noise, "--store", finished).err == ""


def test_the_run_folder_shows_each_step_by_name(finished: Path) -> None:
    (folder,) = (finished / "runs").iterdir()
    assert len(list((folder / "samples" / "noise").glob("*.nii.gz"))) == 3
    assert (folder / "weights" / "noise_statistics" / "weights" / "statistics.safetensors").exists()
    listed = dict(line.split("\t") for line in (folder / "objects.tsv").read_text().splitlines())
    assert Path(listed["samples/noise"]) == (folder / "samples" / "noise").resolve()


def test_a_runs_own_file_runs_it_again(bench: Any, finished: Path) -> None:
    (folder,) = (finished / "runs").iterdir()
    done = bench("run", folder / "run.yaml", "--store", finished, "--no-report")
    assert (done.code, done.out) == (0, f"{folder}\n")
    assert "to do" not in done.err


def test_the_command_line_wins_over_the_run_file(bench: Any, finished: Path) -> None:
    (folder,) = (finished / "runs").iterdir()
    rows = json.loads(bench("plan", folder / "run.yaml", "--samples", "5", "--store", finished, "--json").out)["steps"]
    assert next((row["to_do"], row["of"]) for row in rows if row["step"] == "samples:noise") == (2, 5)


def test_a_run_file_keeps_the_place_of_the_data_that_the_environment_gave(bench: Any, tmp_path: Path) -> None:
    dataset = PhantomDataset(PhantomConfig(shape=(16, 16, 16), n_train=10))
    for case in dataset.cases("train"):
        path = tmp_path / "ct" / case.patient / "ct.nii.gz"
        path.parent.mkdir(parents=True)
        write_volume(path, dataset.load(case)[0])
    done = bench(
        *("run", "--generator", "noise", "--dataset", "folder", "--set", "dataset.shape=16,16,16"),
        *("--store", tmp_path / "store", "--max-time", "0.001"),
        env={"MEDLORD_BENCH_DATA_ROOT": str(tmp_path / "ct")},
    )
    assert done.code == 75, done.err
    (written,) = (tmp_path / "store" / "runs").glob("*/run.yaml")
    assert yaml.safe_load(written.read_text())["set"]["dataset.data_root"] == str(tmp_path / "ct")


def test_long_lists_of_contestants_get_run_folders_of_their_own(bench: Any, tmp_path: Path) -> None:
    presets = ("smoke", "released-luna")
    labels = [f"medlord{variant}@{preset}" for variant in ("", ":untrained") for preset in presets]
    words = [word for label in ("noise", *labels) for word in ("--generator", label)]
    for seed in ("0", "1", "0"):
        done = bench("run", *words, *PHANTOM, "--seed", seed, "--store", tmp_path, "--max-time", "0.001")
        assert done.code == 75, done.err
    assert len(list((tmp_path / "runs").iterdir())) == 2


# ----------------------------------------------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--generator", "medlrod", *PHANTOM), "unknown generator 'medlrod'; did you mean 'medlord'?"),
        (("--generator", "medlord@smok", *PHANTOM), "unknown preset 'smok'; did you mean 'smoke'?"),
        (("--generator", "medlord:untraind", *PHANTOM), "unknown variant 'untraind'; did you mean 'untrained'?"),
        (("--generator", "noise", "--dataset", "phantm"), "unknown dataset 'phantm'; did you mean 'phantom'?"),
        (("--generator", "noise", *PHANTOM, "--metric", "fdi"), "unknown metric 'fdi'; did you mean 'fid'?"),
        (("--generator", "noise", *PHANTOM, "--set", "dataset.shap=8"), "unknown field 'shap'; did you mean 'shape'?"),
        (("--generator", "noise", *PHANTOM, "--set", "datset.seed=8"), "did you mean 'dataset'?"),
        (
            ("--generator", "noise", *PHANTOM, "--set", "dataset.seed=x"),
            "field 'seed': Input should be a valid integer",
        ),
        (("--generator", "noise", *PHANTOM, "--samples", "-1"), "field 'samples': Input should be greater than"),
        (("--generator", "noise", *PHANTOM, "--batch", "0"), "field 'batch': Input should be greater than"),
        (("--generator", "noise", *PHANTOM, "--workers", "0"), "field 'workers': Input should be greater than"),
        (("--generator", "noise", *PHANTOM, "--executor", "lokal"), "unknown executor 'lokal'; did you mean 'local'?"),
        (("--generator", "noise", *PHANTOM, "--device", "tpu"), "--device tpu: expected auto, cpu, cuda or cuda:N"),
        (("--generator", "noise", *PHANTOM, "--device", "cuda:99"), "torch sees"),
        (("--generator", "medlord@smoke", *PHANTOM, "--weights", "nowhere"), "nowhere: not found"),
        (("--generator", "noise", *PHANTOM, "--weights", "nowhere"), "generator noise takes no weights"),
        (("--generator", "noise", *PHANTOM, "--samples", "0"), "nothing to do"),
        (("--generator", "noise"), "no data set: give --dataset NAME"),
        (PHANTOM, "no generator: give --generator NAME"),
        (("nowhere.yaml",), "nowhere.yaml: not found; expected a YAML run file"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_was_meant_and_leaves_no_run(
    bench: Any, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = bench("run", *words, "--store", tmp_path / "store")
    assert done.code == 2
    assert message in one_line(done)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("rum",), "unknown verb 'rum'; did you mean 'run'?"),
        (("run", "--generatr", "noise"), "--generator"),
        (("run", "--samples", "many"), "'many' is not a valid integer"),
    ],
)
def test_a_mistake_in_the_words_themselves_is_exit_2_with_the_near_miss(
    bench: Any, words: tuple[str, ...], message: str
) -> None:
    done = bench(*words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err.splitlines()[-1]


@pytest.mark.parametrize("dataset", ["pccta", "luna16"])
def test_data_that_are_not_there_are_exit_3_and_say_what_to_give_what_stands_in_and_what_works_now(
    bench: Any, dataset: str
) -> None:
    done = bench("run", "--generator", "medlord", "--dataset", dataset)
    assert done.code == 3
    message = one_line(done)
    for part in ("--data-root DIR", *DATA[dataset], "medlord-bench run --generator medlord --dataset phantom"):
        assert part in message


def test_debug_shows_where_a_mistake_was_found(bench: Any) -> None:
    assert "Traceback" in bench("--debug", "run", "--generator", "medlrod", *PHANTOM).err


def test_an_unexpected_error_in_a_plugin_is_exit_1_and_not_taken_for_a_mistake_of_the_user(
    bench: Any, noise: Any, tmp_path: Path
) -> None:
    broken = "from medlord_bench.generators.controls.noise import Noise\nNoise.sample = lambda *given: 1 / 0"
    done = bench("run", *noise, "--store", tmp_path, prelude=broken)
    assert done.code == 1
    assert "ZeroDivisionError" in done.err
    events = [json.loads(line) for line in next(tmp_path.glob("runs/*/events.jsonl")).read_text().splitlines()]
    assert (events[-1]["event"], events[-1]["why"]) == ("stopped", "division by zero")


def test_samples_that_cannot_be_used_are_counted_and_the_run_goes_on(bench: Any, noise: Any, tmp_path: Path) -> None:
    broken = """
import numpy as np
from medlord_bench.contracts import Failure, Volume
from medlord_bench.generators.controls.noise import Noise
real = Noise.sample
def sample(self, weights, requests, run):
    for request, volume in zip(requests, real(self, weights, requests, run)):
        kind = request.index % 5
        yield [
            volume, Failure("it did not converge"), Volume(np.full_like(volume.hu, 7), volume.affine),
            Volume((volume.hu > 0).astype(np.int16), volume.affine), Volume(volume.hu[1:], volume.affine),
        ][kind]
Noise.sample = sample
"""
    larger = ("--set", "dataset.n_train=8", "--set", "dataset.n_test=8")  # one sample per test case
    done = bench("run", *noise, *larger, "--store", tmp_path, "--no-report", prelude=broken)
    assert done.code == 0, done.err
    assert "samples:noise: 6 of 8 failed, first: sample-00001: it did not converge" in done.err
    folder = next(tmp_path.glob("objects/samples/*/items"))
    reasons = [json.loads(path.read_text())["failed"] for path in sorted(folder.glob("*.json"))]
    expected = [None, "converge", "constant", "scaled to", "shape", None, "converge", "constant"]
    for part, reason in zip(expected, reasons, strict=True):
        assert reason is None if part is None else part in reason
    scores = json.loads(next(tmp_path.glob("runs/*/results/scores.json")).read_text())["scores"]
    fid = [score for score in scores if score["metric"] == "fid"]
    assert fid and all((score["n"], score["failed"]) == (8, 6) for score in fid)


# ------------------------------------------------------------------------------------------------------- a bad place
NO_ROOM = """
import errno, os
real, seen = os.replace, 0
def replace(source, target):
    global seen
    seen += "/items/sample-" in str(target)
    if seen == 3:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    real(source, target)
os.replace = replace
"""


def test_a_full_store_is_one_line_and_the_same_command_goes_on(
    bench: Any, noise: Any, finished: Path, tmp_path: Path
) -> None:
    done = bench("run", *noise, "--store", tmp_path, prelude=NO_ROOM)
    assert done.code == 2
    message = one_line(done)
    assert "sample-00001.nii.gz: No space left on device; published items are kept" in message
    (items,) = tmp_path.glob("objects/samples/*/items")
    kept = {path.name: path.stat().st_mtime_ns for path in items.iterdir()}
    assert sorted(kept) == ["sample-00000.json", "sample-00000.nii.gz"]
    assert bench("run", *noise, "--store", tmp_path).code == 0
    assert all((items / name).stat().st_mtime_ns == time for name, time in kept.items())
    whole = next(finished.glob("objects/samples/*/items"))
    for path in whole.glob("*.nii.gz"):
        assert (items / path.name).read_bytes() == path.read_bytes()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of one MiB at first."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs rights that this test does not have")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def remount(place: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(place)], check=True)


def test_a_disk_that_really_fills_up_in_any_step_is_one_line_leaves_no_rubbish_and_goes_on_with_room(
    bench: Any, small_disk: Path
) -> None:
    words = (*MEDLORD, *bench.phantom, "--store", small_disk / "store")
    stopped_in = set()
    for size in ("400k", "1200k", "6m", "20m", "21m"):
        remount(small_disk, f"size={size}")
        done = bench(*words)
        if done.code == 0:
            break
        assert done.code == 2, done.err
        message = one_line(done)
        assert "No space left on device; published items are kept" in message
        stopped_in.add(message.split("/objects/")[1].split("/")[0])
        rubbish = [path for path in small_disk.rglob(".*") if path.is_file()]
        assert rubbish == []
    remount(small_disk, "size=200m")
    assert bench(*words).code == 0
    assert {"images", "trainings"} <= stopped_in


def test_a_read_only_store_is_one_line(bench: Any, noise: Any, small_disk: Path) -> None:
    remount(small_disk, "ro")
    done = bench("run", *noise, "--store", small_disk / "store")
    remount(small_disk, "rw")
    assert done.code == 2
    assert f"{small_disk}/store" in one_line(done) and "Read-only file system" in done.err


def test_a_store_without_the_right_to_write_is_one_line(bench: Any, noise: Any, tmp_path: Path) -> None:
    refuse = "import pathlib\ndef mkdir(self, *a, **k): raise PermissionError(13, 'Permission denied', str(self))\n"
    done = bench("run", *noise, "--store", tmp_path / "store", prelude=refuse + "pathlib.Path.mkdir = mkdir")
    assert done.code == 2
    assert f"{tmp_path}/store" in one_line(done) and "Permission denied" in done.err


# ------------------------------------------------------------------------------------------------------------- rivals
PAUSE = """
import os, signal
real = os.replace
def replace(source, target):
    real(source, target)
    if "/checkpoints/last.pt" in str(target):
        os.replace = real
        os.kill(os.getpid(), signal.SIGSTOP)
os.replace = replace
"""


def paused(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_of_two_runs_that_train_the_same_object_the_second_is_told_who_does(bench: Any, tmp_path: Path) -> None:
    words = (*MEDLORD, *bench.phantom, "--store", tmp_path)
    first = bench.start(*words, prelude=PAUSE)
    deadline = time.monotonic() + 120
    while not paused(first.pid):
        assert time.monotonic() < deadline and not first.ended()
        time.sleep(0.01)
    second = bench(*words)
    assert second.code == 2
    assert f"another run trains this (host {socket.gethostname()}, process {first.pid}, job none)" in one_line(second)
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait().code == 0
    assert bench(*words).code == 0
