"""A training on two processes ends with the weights of one, and goes on with one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
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
OF_VQTRANS = (
    "transformer.batch=4",
    "transformer.micro_batch=2",
    f"transformer.steps={STEPS}",
    "transformer.selection=last",
)
OF_MAISI = (
    "autoencoder.batch=4",
    "autoencoder.micro_batch=2",
    f"autoencoder.steps={STEPS}",
    "autoencoder.selection=last",
)
OF_HAGAN = ("training.batch=4", "training.micro_batch=1", f"training.steps={STEPS}", "training.selection=last")


def words_of(name: str, sets: tuple[str, ...]) -> tuple[str, ...]:
    words = ("run", "--generator", name, "--device", "cpu", "--no-report")
    return words + tuple(word for one in sets for word in ("--set", f"generator.{one}"))


MEDLORD, VQTRANS, MAISI, HAGAN = (f"{name}@smoke" for name in ("medlord", "vqtrans", "maisi", "hagan"))
SETS_OF = {MEDLORD: SETS, VQTRANS: OF_VQTRANS, MAISI: OF_MAISI, HAGAN: OF_HAGAN}
WORDS_OF = {name: words_of(name, sets) for name, sets in SETS_OF.items()}
WORDS = WORDS_OF[MEDLORD]
STAGES = (
    *((MEDLORD, stage) for stage in ("autoencoder", "diffusion", "controlnet")),
    (VQTRANS, "transformer"),
    (MAISI, "autoencoder"),
    (HAGAN, "gan"),
)
# Where a gradient is rounding alone, Adam without momentum makes full steps of it: HA-GAN's latent encoder has no influence
# yet, nor has a bias before a norm. `tests/generators/test_hagan_plugin.py` compares all its gradients.
COMPARED = {HAGAN: ("generator.trunk.", "slab_encoder.")}

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
def one_process(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Generator -> the store of a run whose trainings had one process."""

    @cache
    def run(name: str) -> Path:
        store: Path = tmp_path_factory.mktemp("ranks") / "one"
        done = bench(*WORDS_OF[name], *bench.phantom, "--store", store)
        assert done.code == 0, done.err
        return store

    return run


def weights(store: Path, name: str, stage: str) -> dict[str, Any]:
    step = read_plan(locate(Store(store), None)).step(f"train:{name}:{stage}")
    made = Store(store).object("weights", step.key)
    assert made.sidecar("weights").facts["trained"]["steps"] == STEPS
    tensors = load_file(made.items / "weights" / "model.safetensors")
    return {key: tensor for key, tensor in tensors.items() if key.startswith(COMPARED.get(name, ""))}


def largest(first: dict[str, Any], second: dict[str, Any]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name].float() - second[name].float()).abs().max()) for name in first if first[name].numel())


def test_two_processes_give_the_weights_of_one_and_one_goes_on(bench: Any, one_process: Any, tmp_path: Path) -> None:
    fault = STOP.format(fragment="checkpoints/last.pt", mark=str(tmp_path / "mark"))
    words = (*WORDS, *bench.phantom, "--store", tmp_path / "two")
    stopped = bench(*words, "--gpus", "2", "--set", "generator.autoencoder.checkpoint_every=10", prelude=fault)
    assert stopped.code == ExitCode.REQUEUE, stopped.err
    done = bench(*words, "--set", "generator.autoencoder.checkpoint_every=10")  # on with one process
    assert done.code == 0, done.err
    alone = weights(one_process(MEDLORD), MEDLORD, "autoencoder")
    assert largest(alone, weights(tmp_path / "two", MEDLORD, "autoencoder")) < 1e-5


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_a_stage_on_two_processes_gives_the_weights_of_one_and_is_saved_once(
    bench: Any, one_process: Any, tmp_path: Path, name: str, stage: str
) -> None:
    store, one = tmp_path / "two", one_process(name)
    shutil.copytree(one, store, symlinks=True)
    step = read_plan(locate(Store(store), None)).step(f"train:{name}:{stage}")
    shutil.rmtree(store / "objects" / "weights" / step.key)
    training = store / "objects" / "trainings" / step.detail["lineage"]
    shutil.rmtree(training)
    done = bench(*WORDS_OF[name], *bench.phantom, "--store", store, "--gpus", "2")
    assert done.code == 0, done.err
    assert largest(weights(one, name, stage), weights(store, name, stage)) < 1e-5
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
