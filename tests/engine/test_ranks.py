"""A training on two processes ends with the weights of one, and goes on with one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from medlord_bench.engine.plan import read_plan
from medlord_bench.engine.run_folder import locate
from medlord_bench.engine.store import Store
from medlord_bench.errors import ExitCode

STEPS = 20
SETS = (
    *(
        "autoencoder.batch=4",
        "autoencoder.micro_batch=2",
        f"autoencoder.steps={STEPS}",
        "autoencoder.perceptual_slices=0.5",
    ),
    *("diffusion.batch=4", "diffusion.micro_batch=1", f"diffusion.steps={STEPS}", f"controlnet.steps={STEPS}"),
    *("controlnet.batch=2", "controlnet.micro_batch=1"),
    *(f"{stage}.selection=last" for stage in ("autoencoder", "diffusion", "controlnet")),
)
WORDS = ("run", "--generator", "medlord@smoke", "--device", "cpu", "--no-report")
WORDS += tuple(word for one in SETS for word in ("--set", f"generator.{one}"))
STAGES = ("autoencoder", "diffusion", "controlnet")

# Stop with everything saved before the n-th checkpoint is written.
STOP = """
import os, signal
real = os.replace
def replace(source, target):
    if {fragment!r} in str(target) and not os.path.exists({mark!r}):
        open({mark!r}, "w").close()
        os.kill(os.getpid(), signal.SIGUSR1)
    real(source, target)
os.replace = replace
"""


@pytest.fixture(scope="module")
def one(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run whose trainings had one process."""
    store: Path = tmp_path_factory.mktemp("ranks") / "one"
    done = bench(*WORDS, *bench.phantom, "--store", store)
    assert done.code == 0, done.err
    return store


def weights(store: Path, stage: str) -> dict[str, Any]:
    step = read_plan(locate(Store(store), None)).step(f"train:medlord@smoke:{stage}")
    made = Store(store).object("weights", step.key)
    assert made.sidecar("weights").facts["trained"]["steps"] == STEPS
    return load_file(made.items / "weights" / "model.safetensors")


def largest(first: dict[str, Any], second: dict[str, Any]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name].float() - second[name].float()).abs().max()) for name in first if first[name].numel())


def test_two_processes_give_the_weights_of_one_and_one_goes_on(bench: Any, one: Path, tmp_path: Path) -> None:
    fault = STOP.format(fragment="checkpoints/last.pt", mark=str(tmp_path / "mark"))
    words = (*WORDS, *bench.phantom, "--store", tmp_path / "two")
    stopped = bench(*words, "--gpus", "2", "--set", "generator.autoencoder.checkpoint_every=10", prelude=fault)
    assert stopped.code == ExitCode.REQUEUE, stopped.err
    done = bench(*words, "--set", "generator.autoencoder.checkpoint_every=10")  # on with one process
    assert done.code == 0, done.err
    assert largest(weights(one, "autoencoder"), weights(tmp_path / "two", "autoencoder")) < 1e-5


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_on_two_processes_gives_the_weights_of_one_and_is_saved_once(
    bench: Any, one: Path, tmp_path: Path, stage: str
) -> None:
    store = tmp_path / "two"
    shutil.copytree(one, store, symlinks=True)
    step = read_plan(locate(Store(store), None)).step(f"train:medlord@smoke:{stage}")
    shutil.rmtree(store / "objects" / "weights" / step.key)
    training = store / "objects" / "trainings" / step.detail["lineage"]
    shutil.rmtree(training)
    done = bench(*WORDS, *bench.phantom, "--store", store, "--gpus", "2")
    assert done.code == 0, done.err
    assert largest(weights(one, stage), weights(store, stage)) < 1e-5
    lines = [json.loads(line) for line in (training / "curves.jsonl").read_text().splitlines()]
    numbers = [line["step"] for line in lines if line["split"] == "train"]
    assert numbers[-1] == STEPS and numbers == sorted(set(numbers)), "each step is recorded once"
    (log,) = (locate(Store(store), None) / "logs").glob("*.ranks.log")
    assert "Error" not in log.read_text()


def test_more_processes_than_micro_batches_are_one_line(bench: Any, tmp_path: Path) -> None:
    done = bench(*WORDS, *bench.phantom, "--store", tmp_path, "--gpus", "5")
    assert done.code == ExitCode.USAGE
    assert "--gpus 5, but a batch has 2 micro-batches" in done.err.splitlines()[-1]


def test_a_process_that_dies_ends_the_training_in_one_line(bench: Any, tmp_path: Path) -> None:
    code = "import os, sys\nwords = open('/proc/self/cmdline').read().split('\\0')\nif '--rank' in words: os._exit(9)\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    store = tmp_path / "store"
    done = bench(*WORDS, *bench.phantom, "--store", store, "--gpus", "2", env={"PYTHONPATH": str(tmp_path)})
    assert done.code == ExitCode.FAILED
    assert "a process of 2 ended with 9" in done.err.splitlines()[-1] and "Traceback" not in done.err
