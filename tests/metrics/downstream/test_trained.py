"""Real nnU-Net, very short: a run that is killed in planning, training and prediction ends as one that is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medlord_bench.engine.run_folder import locate
from medlord_bench.engine.store import Store

pytest.importorskip("nnunetv2", reason="pip install 'medlord-bench[nnunet]'")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SETTINGS = (
    *("dataset.shape=48,48,32", "dataset.n_train=3", "dataset.n_val=1", "dataset.n_test=2"),
    *("downstream.regions=lungs,aorta", "downstream.arms=real,synthetic", "downstream.epochs=3"),
    *("downstream.iterations=4", "downstream.on_samples=false"),
)
RUN = (
    "run",
    "--generator",
    "oracle",
    "--dataset",
    "phantom",
    "--metric",
    "downstream",
    "--no-report",
    "--threads",
    "1",
)
WAIT_SECONDS = 1500.0


def command(store: Path, *more: str) -> list[str]:
    sets = [word for setting in SETTINGS for word in ("--set", setting)]
    return [sys.executable, "-m", "medlord_bench", *RUN, *sets, "--store", str(store), *more]


def start(store: Path, *more: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(store, *more),
        env=environment,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def finish(store: Path, *more: str) -> None:
    assert start(store, *more).wait(WAIT_SECONDS) == 0


def kill_when(store: Path, reached: Callable[[], Any]) -> None:
    """Kill the run, and only it, as soon as something is reached."""
    process, end = start(store), time.monotonic() + WAIT_SECONDS
    while not reached():
        assert process.poll() is None and time.monotonic() < end, "it ended before it was killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def results(store: Path) -> Any:
    return json.loads((locate(Store(store), None) / "results" / "scores.json").read_text())


def objects(store: Path, kind: str, pattern: str) -> list[Path]:
    return list((store / "objects" / kind).glob(pattern))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("whole")
    finish(store)
    return store


def test_killed_in_planning_training_and_prediction_it_ends_in_the_same_scores(whole: Path, tmp_path: Path) -> None:
    moments = (
        lambda: objects(tmp_path, "trainings", "*/preprocessed/*/dataset_fingerprint.json"),  # planning
        lambda: objects(tmp_path, "trainings", "*/preprocessed/*/done/*"),  # preprocessing
        lambda: objects(tmp_path, "trainings", "*/results/**/checkpoint_latest.pth"),  # training
        lambda: objects(tmp_path, "predictions", "*/items/*.json"),  # prediction
    )
    for reached in moments:
        kill_when(tmp_path, reached)
    finish(tmp_path)
    assert results(tmp_path) == results(whole)
    epochs = [json.loads(path.read_text()) for path in objects(tmp_path, "arms", "*/items/*/epochs.json")]
    assert [[one["epoch"] for one in own] for own in epochs] == [[0, 1, 2]] * 2


def test_two_workers_train_two_arms_at_once_to_the_same_scores(whole: Path, tmp_path: Path) -> None:
    more = ("--executor", "local", "--workers", "2", "--set", "downstream.arms=real,synthetic,real-other-seed")
    finish(tmp_path, *more)
    folder = locate(Store(tmp_path), None)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    own = [one for one in events if one["step"] == "arms:real:downstream"]
    assert [one["event"] for one in own] == ["start", "start", "done", "done"], "both began before one had ended"
    theirs = {(one["metric"], one["region"]): one["value"] for one in results(whole)["scores"]}
    ours = {(one["metric"], one["region"]): one["value"] for one in results(tmp_path)["scores"]}
    same = [name for name in theirs if name[0].startswith(("dt_dsc_real", "dt_dsc_synthetic"))]
    assert same and {name: ours[name] for name in same} == {name: theirs[name] for name in same}


def test_a_trained_model_is_a_segmenter_that_needs_no_trust(whole: Path) -> None:
    from medlord_bench.plugins.segmenters.nnunet.segmenter import NnUNetConfig, NnUNetSegmenter

    (model,) = objects(whole, "arms", "*/items/real.seed0")
    segmenter = NnUNetSegmenter(NnUNetConfig(folder=model))
    assert segmenter.names == {1: "lungs", 2: "aorta"}
    assert "fold_0/checkpoint_final.pth" in segmenter.fingerprint([])
