"""nnU-Net's data set of an arm, and how its process ends, by a process that trains nothing."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medlord_bench.contracts import LabelMap, Run
from medlord_bench.contracts.arms import Arm
from medlord_bench.errors import ExitCode, MemoryBudgetError, MissingError, StepError, Stopped, UserError
from medlord_bench.metrics.downstream import nnunet
from medlord_bench.metrics.downstream.metric import Downstream, DownstreamConfig
from medlord_bench.metrics.downstream.nnunet import TRAINERS, Training, renumbered
from medlord_bench.metrics.downstream.process import epochs_of
from tests.metrics.downstream.conftest import NAMES, labelled

TRAINING = Training(("aorta", "lungs"), replace(TRAINERS["tiny"], epochs=3), None)
CASES = [labelled("a"), labelled("b")]
ARM = Arm(name="real", real=("a", "b"), length=2.0)


def train(run: Run, out: Path) -> tuple[Path, dict]:
    shared = TRAINING.plan(CASES, out / "plan", run)
    return TRAINING.train(ARM, CASES, [labelled("v")], shared, out / "arm", run)


def test_labels_become_consecutive_in_the_order_of_the_regions() -> None:
    _, mask = CASES[0].open()
    made = renumbered("a", mask, ("aorta", "lungs"))
    assert np.array_equal(made, np.select([mask.labels == 9, np.isin(mask.labels, (4, 5))], [1, 2], 0))
    assert made.dtype == np.uint8


@pytest.mark.parametrize(
    ("regions", "told"),
    [
        (("spine",), "case a: its mask does not define 'spine' (it defines aorta, lung_left, lung_right)"),
        (("lungs", "lung_left"), "regions 'lungs' and 'lung_left' both contain label 4 (lung_left)"),
    ],
)
def test_regions_that_cannot_be_labels_are_refused(regions: tuple[str, ...], told: str) -> None:
    with pytest.raises(UserError) as error:
        renumbered("a", CASES[0].open()[1], regions)
    assert told in str(error.value) and "downstream.regions" in str(error.value)


def test_the_data_set_is_nnu_net_s_and_the_split_is_explicit(fake_nnunet: None, run: Run, tmp_path: Path) -> None:
    model, facts = train(run, tmp_path)
    raw = tmp_path / "arm" / "raw" / "Dataset001_Arm"
    described = json.loads((raw / "dataset.json").read_text())
    assert described["labels"] == {"background": 0, "aorta": 1, "lungs": 2} and described["channel_names"] == {
        "0": "CT"
    }
    image, labels = (nib.load(raw / name) for name in ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"))
    volume, mask = CASES[0].open()
    assert np.array_equal(image.get_fdata(), volume.hu) and image.header.get_zooms() == (2, 2, 3)
    assert np.array_equal(np.asarray(labels.dataobj), renumbered("a", mask, TRAINING.regions))
    found = json.loads((model / "model.json").read_text())
    assert found["split"] == {"train": ["a", "b"], "val": ["v"]}
    assert found["plan"]["cases"] == ["a", "b"], "planned on the real cases alone"
    assert (facts["epochs"], facts["iterations"], facts["absent_regions"]) == (6, 150, [])


def test_another_seed_and_another_run_train_anew(fake_nnunet: None, run: Run, tmp_path: Path) -> None:
    shared = TRAINING.plan(CASES, tmp_path / "plan", run)
    seeds = []
    for number, (arm, own) in enumerate(
        [(ARM, run), (ARM.model_copy(update={"seed": 1}), run), (ARM, replace(run, seed=1))]
    ):
        model, _ = TRAINING.train(arm, CASES, [], shared, tmp_path / str(number), own)
        seeds.append(json.loads((model / "model.json").read_text())["seed"])
    assert len(set(seeds)) == 3


def test_a_region_that_no_training_case_has_is_recorded(fake_nnunet: None, run: Run, tmp_path: Path) -> None:
    shared = TRAINING.plan(CASES, tmp_path / "plan", run)
    cases = [labelled("a", aorta=False), labelled("b", aorta=False)]
    assert TRAINING.train(ARM, cases, [], shared, tmp_path / "arm", run)[1]["absent_regions"] == ["aorta"]


def test_nnu_net_s_variables_of_the_user_are_left_alone(
    fake_nnunet: None, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("nnUNet_raw", "nnUNet_results", "nnUNet_preprocessed", "nnUNet_extTrainer")
    for name in names:
        monkeypatch.setenv(name, str(tmp_path / "mine"))
    train(run, tmp_path)
    assert {os.environ[name] for name in names} == {str(tmp_path / "mine")} and not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ("killed", "its process was killed, probably because memory was short: set a lower downstream.planner_gb"),
        ("workers", "its worker processes died, which nnU-Net does not explain: the system ends them when memory"),
        ("disk", "the disk is full: free space in the store and run the same command again"),
        ("error", "its process ended with exit code 3 (ValueError: something else)"),
    ],
)
def test_the_end_of_the_process_is_explained(
    ending: str, told: str, fake_nnunet: None, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", ending)
    with pytest.raises(StepError) as error:
        TRAINING.plan(CASES, tmp_path, run)
    assert str(error.value).startswith("plan the segmenter: ") and told in str(error.value)
    assert str(tmp_path / "log.txt") in str(error.value) and "\n" not in str(error.value)


def test_out_of_memory_under_the_limit_has_its_own_exit_code(
    fake_nnunet: None, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", "memory")
    with pytest.raises(MemoryBudgetError, match=r"plan the segmenter: out of memory .*--memory-limit 20"):
        TRAINING.plan(CASES, tmp_path, replace(run, memory_limit=20.0))


def test_a_stop_ends_the_process(fake_nnunet: None, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE", "endless")
    started = tmp_path / "pid"
    with pytest.raises(Stopped, match="plan the segmenter: stopped"):
        TRAINING.plan(CASES, tmp_path, replace(run, stop=started.exists))
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


def test_the_process_ends_with_the_bench(tmp_path: Path) -> None:
    """Its standard input ends when the bench is killed."""
    import subprocess
    import sys

    code = (
        "import threading, time\n"
        "from medlord_bench.metrics.downstream import child\n"
        "threading.Thread(target=child._end_with_input, daemon=True).start()\n"
        "time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, start_new_session=True)
    time.sleep(1.0)
    assert process.stdin is not None and process.poll() is None
    process.stdin.close()
    assert process.wait(10) == -signal.SIGKILL


def test_a_probe_predicts_the_hours_of_an_arm(fake_nnunet: None, run: Run, tmp_path: Path) -> None:
    shared = TRAINING.plan(CASES, tmp_path / "plan", run)
    speeds = TRAINING.probe(CASES, [labelled("v")], shared, tmp_path / "probe", run)
    assert speeds == {"iteration": 0.1, "validation": 0.05, "saving": 0.5, "case": 1.0, "start": speeds["start"]}
    hours = TRAINING.hours(ARM, validation=1, speeds={**speeds, "start": 20.0})
    # Starting, 3 cases, and 2 x 3 epochs of 25 iterations, one validation iteration and saving.
    assert hours * 3600 == pytest.approx(20 + 3 * 1.0 + 6 * (25 * 0.1 + 0.05 + 0.5))


def test_an_epoch_that_was_done_again_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    path.write_text('{"epoch": 0, "seconds": 1}\n{"epoch": 1, "seconds": 2}\n{"epoch": 1, "seconds": 3}\n{"epo')
    assert [one["seconds"] for one in epochs_of(path)] == [1, 3] and epochs_of(tmp_path / "none") == []


def test_without_nnu_net_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nnunet, "find_spec", lambda _: None)
    with pytest.raises(MissingError, match=r"medlord-bench\[nnunet\]") as error:
        Downstream(DownstreamConfig(regions=("aorta",), trainer="tiny")).training()
    assert error.value.code == ExitCode.MISSING


def test_the_label_map_of_a_composite_has_one_value() -> None:
    mask = LabelMap(np.array([[[4, 5, 0]]], np.uint8), np.eye(4), NAMES)
    assert renumbered("x", mask, ("lungs",)).ravel().tolist() == [1, 1, 0]


def test_on_a_gpu_nnu_net_plans_for_no_more_memory_than_the_guard_allows(run: Run, tmp_path: Path) -> None:
    small = replace(run, device="cuda:0", memory_limit=6.0)
    with pytest.raises(UserError, match="plans for 8 GB, the memory limit is 6 GiB; set --set downstream.planner_gb=6"):
        TRAINING.plan(CASES, tmp_path, small)
