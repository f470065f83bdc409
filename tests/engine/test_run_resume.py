"""A run that is killed or stopped in any stage goes on with the same command and ends in the same bytes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medlord_bench.engine.plan import Plan, read_plan
from medlord_bench.engine.run_folder import locate
from medlord_bench.engine.store import Store

RUN = ("run", "--generator", "medlord@smoke", "--no-report", "--set", "generator.controlnet.steps=6")

# A signal to itself just before the n-th file whose path holds `fragment` is renamed into place.
FAULT = """
import os, signal
real, seen = os.replace, 0
def replace(source, target):
    global seen
    seen += {fragment!r} in str(target)
    if seen == {nth} and {fragment!r} in str(target):
        os.kill(os.getpid(), signal.{signal})
    real(source, target)
os.replace = replace
"""


def plan_of(store: Path) -> Plan:
    return read_plan(locate(Store(store), None))


def made(store: Path) -> dict[str, bytes]:
    """Everything that a step published, by path below `objects`: volumes, images, weights, states, scores."""
    found = {}
    for path in sorted((store / "objects").rglob("*")):
        inside = path.relative_to(store / "objects")
        published = inside.parts[0] != "trainings" and not any(part.startswith(".") for part in inside.parts)
        if published and path.name.endswith((".nii.gz", ".npy", ".safetensors", ".scores.json")):
            found[str(inside)] = path.read_bytes()
    return found


def differences(store: Path, whole: Path) -> list[str]:
    """Published files, curves and results that are not the same bytes in both stores. `steps.json` has times."""
    ours, theirs = made(store), made(whole)
    apart = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    results = [locate(Store(place), None) / "results" for place in (store, whole)]
    times = {"steps.json", "sha256.json"}
    names = {str(p.relative_to(r)) for r in results for p in r.rglob("*") if p.is_file() and p.name not in times}
    for name in sorted(names):
        contents = [(result / name).read_bytes() if (result / name).exists() else None for result in results]
        if contents[0] != contents[1]:
            apart.append(f"results/{name}")
    return apart


def moments(plan: Plan) -> dict[str, tuple[str, int]]:
    """A moment within each stage: the n-th file renamed into place whose path holds a fragment."""
    found: dict[str, tuple[str, int]] = {}
    for step in plan.steps:
        name = step.id.replace("medlord@smoke:", "").replace(":medlord@smoke", "")
        if step.kind == "weights":
            lineage = step.detail["lineage"]
            if step.detail["steps"] is None:
                found[name] = (f"{lineage}/{step.detail['stage']}/", 2)
            else:
                found[f"{name}, checkpoint"] = (f"{lineage}/checkpoints/", 2)
                found[f"{name}, best weights"] = (f"{lineage}/best", 1)
            found[f"{name}, publishing"] = (f"{step.key}/items/", 2)
        else:
            found[name] = (f"{step.key}/items/", 3 if len(step.items) > 1 else 1)
    return found


@pytest.fixture(scope="module")
def words(bench: Any) -> tuple[str, ...]:
    return (*RUN, *bench.phantom)


@pytest.fixture(scope="module")
def whole(bench: Any, words: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run that nothing interrupted."""
    store: Path = tmp_path_factory.mktemp("whole") / "store"
    done = bench(*words, "--store", store)
    assert done.code == 0, done.err
    contents = [content for name, content in made(store).items() if name.endswith(".nii.gz")]
    assert len(contents) == len(set(contents)) == 9, "volumes that are all the same would show nothing"
    return store


def test_a_run_killed_once_in_every_stage_ends_in_the_same_bytes(
    bench: Any, words: Any, whole: Path, tmp_path: Path
) -> None:
    for stage, (fragment, nth) in moments(plan_of(whole)).items():
        fault = FAULT.format(fragment=fragment, nth=nth, signal="SIGKILL")
        done = bench(*words, "--store", tmp_path, prelude=fault)
        assert done.code == -signal.SIGKILL, f"not killed in {stage}: {done}"
    assert bench(*words, "--store", tmp_path).code == 0
    assert differences(tmp_path, whole) == []


@pytest.mark.slow
@pytest.mark.parametrize("rival", ["maisi@smoke", "hagan@smoke", "vqtrans@smoke", "voldit@smoke"])
def test_a_rivals_run_killed_once_in_every_stage_ends_in_the_same_bytes(
    bench: Any, tmp_path: Path, rival: str, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("run", "--generator", rival, "--no-resampled", "--no-report", *bench.phantom)
    done = bench(*words, "--store", tmp_path / "whole")
    assert done.code == 0, done.err
    stages = moments(plan_of(tmp_path / "whole"))
    for stage, (fragment, nth) in stages.items():
        fault = FAULT.format(fragment=fragment, nth=nth, signal="SIGKILL")
        done = bench(*words, "--store", tmp_path / "killed", prelude=fault)
        assert done.code == -signal.SIGKILL, f"not killed in {stage}: {done}"
    assert bench(*words, "--store", tmp_path / "killed").code == 0
    with capfd.disabled():
        print(f"\n{rival}: killed in {', '.join(stages)}; same bytes: ", end="")
        print(not differences(tmp_path / "killed", tmp_path / "whole"))
    assert differences(tmp_path / "killed", tmp_path / "whole") == []


def test_a_run_told_to_stop_in_every_stage_saves_says_how_to_go_on_and_ends_in_the_same_bytes(
    bench: Any, words: Any, whole: Path, tmp_path: Path
) -> None:
    *stages, (last, _) = moments(plan_of(whole)).items()
    for stage, (fragment, nth) in stages:
        if stage.endswith("best weights"):  # after the stop before it, no better weights need be found
            continue
        fault = FAULT.format(fragment=fragment, nth=nth, signal="SIGTERM")
        done = bench(*words, "--store", tmp_path, prelude=fault)
        assert done.code == 75, f"{stage}: {done}"
        message = done.err.splitlines()[-1]
        assert message.startswith("Error: ") and "saved" in message, stage
        assert "resume with: medlord-bench run --generator medlord@smoke " in message, stage
        assert done.out == "", stage
    assert last.startswith("scores"), "the last step is the only one that a stop leaves nothing after"
    assert bench(*words, "--store", tmp_path).code == 0
    assert differences(tmp_path, whole) == []


@pytest.mark.parametrize("stage", ["images", "train:diffusion, checkpoint", "samples"])
def test_ctrl_c_saves_and_prints_the_command_that_goes_on(
    bench: Any, words: Any, whole: Path, tmp_path: Path, stage: str
) -> None:
    fragment, nth = moments(plan_of(whole))[stage]
    done = bench(*words, "--store", tmp_path, prelude=FAULT.format(fragment=fragment, nth=nth, signal="SIGINT"))
    assert done.code == 130
    assert f"resume with: medlord-bench {' '.join(words)}" in done.err.splitlines()[-1]
    assert "Traceback" not in done.err


def test_max_time_stops_as_a_signal_does(bench: Any, words: Any, tmp_path: Path) -> None:
    done = bench(*words, "--store", tmp_path, "--max-time", "0.05")
    assert done.code == 75
    assert "--max-time 0.05" in done.err.splitlines()[-1]


def test_a_finished_run_is_not_computed_again(bench: Any, words: Any, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "store", symlinks=True)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "objects").rglob("*")}
    done = bench(*words, "--store", tmp_path / "store")
    assert done.code == 0
    assert "to do" not in done.err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "objects").rglob("*")} == before


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_dies_at_random_every_few_files_it_writes_ends_in_the_same_bytes(
    bench: Any, words: Any, whole: Path, tmp_path: Path, seed: int
) -> None:
    files, deaths = random.Random(seed), 0
    while True:
        fault = FAULT.format(fragment="/objects/", nth=files.randint(1, 9), signal="SIGKILL")
        done = bench(*words, "--store", tmp_path, prelude=fault)
        if done.code != -signal.SIGKILL:
            break
        deaths += 1
        assert deaths < 200, "it gets nowhere"
    assert done.code == 0, done.err
    assert deaths > 20
    assert differences(tmp_path, whole) == []


SHORT_LEASES = """
from medlord_bench.engine import lease
lease.HEARTBEAT_SECONDS, lease.STALE_SECONDS, lease.CHECK_SECONDS = 0.2, 2.0, 0.0
"""


@pytest.mark.slow
def test_a_training_that_slept_while_another_took_over_publishes_nothing(
    bench: Any, words: Any, whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lineage = plan_of(whole).step("train:medlord@smoke:diffusion").detail["lineage"]
    checkpoints = tmp_path / "objects" / "trainings" / lineage / "checkpoints"
    sleeper = bench.start(*words, "--store", tmp_path, prelude=SHORT_LEASES)
    while not (checkpoints.exists() and any(checkpoints.iterdir())):
        assert not sleeper.ended()
        time.sleep(0.002)
    sleeper.send(signal.SIGSTOP)
    assert not any(
        (tmp_path / "objects" / "weights").glob(
            f"{plan_of(tmp_path).step('train:medlord@smoke:diffusion').key}/items/*.json"
        )
    )
    time.sleep(3)
    other = bench(*words, "--store", tmp_path, prelude=SHORT_LEASES)
    assert other.code == 0, other.err

    def state() -> dict[str, tuple[int, bytes]]:
        parts = [tmp_path / "objects", *(tmp_path / "runs").glob("*/results")]
        return {
            str(f): (f.stat().st_mtime_ns, f.read_bytes())
            for part in parts
            for f in part.rglob("*")
            if f.is_file() and not f.name.startswith(".tmp-")  # the sleeper removes its own
        }

    before = state()
    sleeper.send(signal.SIGCONT)
    woken = sleeper.wait()
    changed = [name for name, content in state().items() if before.get(name) != content]
    with capfd.disabled():
        print(f"\nthe sleeper ended with exit {woken.code}: {woken.err.splitlines()[-1]}; files it changed: {changed}")
    assert woken.code == 1 and "another run took over this training" in woken.err.splitlines()[-1]
    assert changed == [] and before.keys() == state().keys()
    assert differences(tmp_path, whole) == []


@pytest.mark.slow
def test_two_workers_killed_at_random_moments_end_in_the_bytes_of_one_process(
    bench: Any, words: Any, whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store, moments_, kills, seen = tmp_path / "store", random.Random(18), 0, []
    command = (*words, "--store", store, "--executor", "local", "--workers", "2")

    def files() -> int:
        return sum(1 for path in (store / "objects").rglob("*") if path.is_file() and not path.name.startswith("."))

    while kills < 20:
        process, wanted = bench.start(*command), files() + moments_.randint(0, 5)
        while files() < wanted and not process.ended():
            time.sleep(0.002)
        time.sleep(moments_.random())
        if process.ended():
            assert process.wait().code == 0
            shutil.rmtree(store)  # it came to its end: on with the next run
            continue
        process.send(signal.SIGKILL)
        assert process.wait().code == -signal.SIGKILL
        kills, seen = kills + 1, [*seen, files()]
    assert bench(*command).code == 0
    apart = differences(store, whole)
    with capfd.disabled():
        print(f"\n{kills} kills with {', '.join(map(str, seen))} files there; same bytes as inline: {not apart}")
    assert apart == []


# ------------------------------------------------------------------------- the program itself, signalled from without
LONG = ("--set", "generator.autoencoder.steps=40", "--set", "generator.diffusion.steps=60")
LONG += ("--set", "generator.controlnet.steps=40", "--samples", "8", "--set", "dataset.n_test=6")


@pytest.fixture(scope="module")
def whole_long(words: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store: Path = tmp_path_factory.mktemp("whole-long") / "store"
    with program(words, store, tmp_path_factory.mktemp("log") / "err") as process:
        assert process.wait() == 0
    return store


def program(words: tuple[str, ...], store: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("medlord-bench")), *words, *LONG, "--store", str(store)]
    with open(log, "ab") as err:
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=err, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )


def seeded(store: Path, whole: Path, stage: str) -> None:
    """A store that holds what the steps before `stage` made, so that the run comes to it at once."""
    for step in plan_of(whole).steps:
        if step.id == stage:
            return
        shutil.copytree(whole / "objects" / step.kind / step.key, store / "objects" / step.kind / step.key)
        if step.kind == "weights":
            training = f"objects/trainings/{step.detail['lineage']}"
            shutil.copytree(whole / training, store / training)


def within(store: Path, plan: Plan, stage: str) -> Callable[[], bool]:
    """Whether the run has begun to write what `stage` makes."""
    step = plan.step(stage)
    folder = store / "objects" / step.kind / step.key / "items"
    if step.kind == "weights":
        folder = store / "objects" / "trainings" / step.detail["lineage"]
        folder = folder / ("latents" if step.detail["steps"] is None else "checkpoints")
    if step.kind == "scores":
        return lambda: (folder.parent / "step.json").exists()
    return lambda: folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir())


STAGES = (
    *("images", "train:medlord@smoke:autoencoder", "train:medlord@smoke:latents", "train:medlord@smoke:diffusion"),
    *("train:medlord@smoke:controlnet", "samples:medlord@smoke", "conditional:medlord@smoke"),
    *("reconstructions:medlord@smoke", "features:images", "states:reconstructions", "scores:medlord@smoke:fid"),
)


def until(happened: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while not happened():
        assert process.poll() is None and time.monotonic() < deadline, "the stage never began"
        time.sleep(0.002)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "err"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
@pytest.mark.parametrize("stage", STAGES)
def test_the_program_signalled_in_a_stage_goes_on_to_the_same_bytes(
    words: Any,
    whole_long: Path,
    tmp_path: Path,
    log: Path,
    stage: str,
    number: signal.Signals,
    capfd: pytest.CaptureFixture[str],
) -> None:
    plan = plan_of(whole_long)
    stage = next(step.id for step in plan.steps if step.id.startswith(stage))
    store = tmp_path / "store"
    seeded(store, whole_long, stage)
    with program(words, store, log) as process:
        until(within(store, plan, stage), process)
        process.send_signal(number)
        code = process.wait()
    left = sum(
        not (store / "objects" / s.kind / s.key / "items" / f"{i}.json").exists() for s in plan.steps for i in s.items
    )
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 75), log.read_text()
    with program(words, store, log) as process:
        assert process.wait() == 0, log.read_text()
    with capfd.disabled():
        print(f"\n{number.name:<8} {stage:<52} exit {code:>3}, {left:>3} items left to do, same bytes: ", end="")
        print(not differences(store, whole_long))
    assert differences(store, whole_long) == []
