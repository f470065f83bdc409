"""Runs on a real Slurm of this machine: what fails is submitted again, alone, and the bytes are those of a run without it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medlord_bench.engine.executors import sbatch, slurm_settings
from medlord_bench.engine.executors.sbatch import Needs
from medlord_bench.engine.executors.slurm import jobs_of, newest, recorded, shards_for
from medlord_bench.engine.plan import read_plan
from medlord_bench.engine.run_folder import locate, settings_of
from medlord_bench.engine.steps.kinds import KINDS
from medlord_bench.engine.store import Store
from medlord_bench.errors import ExitCode, UserError

HELD = ("--slurm", "options=--hold")
JOBS = ("--executor", "slurm", "--workers", "2", "--device", "cpu", "--batch", "1")

# In each job: once, just before the n-th file whose path holds a fragment is renamed into place, an action: a signal to itself,
# a number of bytes to hold, seconds (a float) in which it hears nothing, or a command of Slurm about its own task. A folder is made
# once, so that a job that begins again does not do it again.
FAULTS = """
import os, signal, subprocess, time
me = os.environ.get("SLURM_ARRAY_JOB_ID", "") + "_" + os.environ.get("SLURM_ARRAY_TASK_ID", "")
real, seen = os.replace, {{}}
def replace(source, target):
    for number, (fragment, nth, action) in enumerate({faults!r}):
        if fragment in str(target):
            seen[number] = seen.get(number, 0) + 1
            if seen[number] == nth:
                try:
                    os.mkdir({marks!r} + "/" + str(number))
                except FileExistsError:
                    continue
                if isinstance(action, str):
                    os.kill(os.getpid(), getattr(signal, action))
                elif isinstance(action, int):
                    b"x" * action
                elif isinstance(action, float):
                    time.sleep(action)
                else:
                    subprocess.run([word.replace("ME", me) for word in action], check=True)
    real(source, target)
os.replace = replace
"""


@pytest.fixture(scope="session")
def noise(bench: Any) -> tuple[str, ...]:
    """The words after ``run`` of a run of seconds."""
    return ("--generator", "noise", *bench.phantom)


@pytest.fixture(scope="session")
def cluster(bench: Any, slurm: Path) -> Callable[..., Any]:
    """`bench`, whose commands see the Slurm of the tests."""
    seen = {name: os.environ[name] for name in ("PATH", "SLURM_CONF")}
    return lambda *words, start=False: (bench.start if start else bench)(*words, env=seen)


def run_of(store: Path) -> Path:
    return locate(Store(store), None)


def made(store: Path) -> dict[str, bytes]:
    """Every published file and result that has no times in it, by its path."""
    found = {}
    for path in sorted((store / "objects").rglob("*")):
        inside = path.relative_to(store / "objects")
        published = inside.parts[0] != "trainings" and not path.name.startswith(
            "."
        )  # remains of a kill begin with a dot
        if published and path.name.endswith((".nii.gz", ".npy", ".safetensors", ".scores.json")):
            found[str(inside)] = path.read_bytes()
    for name in ("scores.json", "cases.csv", "comparisons.json"):
        found[name] = (run_of(store) / "results" / name).read_bytes()
    return found


def state_of(job: str, task: int) -> str:
    answer = subprocess.run(
        ["scontrol", "show", "job", "-o", f"{job}_{task}"], capture_output=True, text=True, check=True
    )
    return answer.stdout


def jobs(store: Path, step: str) -> list[dict[str, Any]]:
    return [one for one in recorded(run_of(store)) if one["step"] == step]


# --------------------------------------------------------------------------------------------------- what needs no Slurm
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("partition=a b", "field 'partition'"),
        ("cpus=0", "field 'cpus'"),
        ("cpus=many", "field 'cpus'"),
        ("time=soon", "field 'time'"),
        ("partitoin=gpu", "did you mean 'partition'"),
        ("scroes.gres=", "no kind of step"),
        ("nowhere.yaml", "not found"),
        ("options=--x;`y`", "field 'options'"),
    ],
)
def test_wrong_settings_end_in_one_line_with_the_field(given: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        slurm_settings.parse([given], KINDS)
    assert said in str(error.value).replace('"', "'") and "\n" not in str(error.value)


def test_a_kind_of_step_asks_for_its_own_and_the_rest_for_the_common() -> None:
    made = slurm_settings.parse(
        ["partition=gpu", "gres=gpu:1", "cpus=4", "scores.gres=", "scores.partition=cpu"], KINDS
    )
    assert (made.of("samples").partition, made.of("samples").gres, made.of("samples").cpus) == ("gpu", "gpu:1", 4)
    assert (made.of("scores").partition, made.of("scores").gres, made.of("scores").cpus) == ("cpu", "", 4)


@pytest.mark.parametrize(
    ("limit", "seconds"), [(None, 120), ("1", 15), ("00:04:00", 60), ("10:00:00", 120), ("1-0", 120)]
)
def test_the_warning_comes_well_after_the_start_of_a_short_job(limit: str | None, seconds: int) -> None:
    assert sbatch.warning(limit) == seconds


def test_needs_of_new_jobs_and_of_jobs_of_an_earlier_submission() -> None:
    assert Needs(["3", "4"], ["1"]).option() == ["--dependency=afterok:3:4,afterany:1", "--kill-on-invalid-dep=yes"]
    assert Needs().option() == []


def test_of_a_task_that_was_submitted_again_only_the_last_counts() -> None:
    first = [sbatch.Task("8", 0, "COMPLETED", ""), sbatch.Task("8", 1, "FAILED", "NonZeroExitCode")]
    assert newest([sbatch.Task("12", 1, "COMPLETED", ""), *first]) == [first[0], sbatch.Task("12", 1, "COMPLETED", "")]


def test_without_sbatch_a_run_ends_with_exit_3_and_one_line(bench: Any, noise: tuple[str, ...], tmp_path: Path) -> None:
    done = bench("run", *noise, *JOBS, "--store", tmp_path, env={"PATH": str(tmp_path)})
    assert done.code == ExitCode.MISSING
    assert [line for line in done.err.splitlines() if line.startswith("Error: ")] == done.err.splitlines()[-1:]
    assert "plan --sbatch" in done.err


def test_scripts_are_printed_for_another_to_submit(bench: Any, noise: tuple[str, ...], tmp_path: Path) -> None:
    done = bench("plan", *noise, "--workers", "2", "--slurm", "partition=gpu", "--sbatch", "--store", tmp_path)
    assert done.code == 0, done.err
    assert subprocess.run(["bash", "-n"], input=done.out, text=True).returncode == 0
    steps = read_plan(run_of(tmp_path)).steps
    assert done.out.count("sbatch --parsable") == len(steps) + 1
    assert done.out.count("--partition=gpu") == len(steps) + 1


# ---------------------------------------------------------------------------------------------------------- held jobs
@pytest.fixture
def held(slurm: Path, cluster: Any, noise: tuple[str, ...], tmp_path: Path) -> Any:
    """Submits a run whose jobs all wait."""
    words = ("run", *noise, *JOBS, *HELD, "--detach", "--store", tmp_path)
    assert cluster(*words).code == 0
    yield words
    cluster("cancel", "--store", tmp_path)


def test_each_step_is_an_array_that_waits_for_its_inputs(held: Any, tmp_path: Path) -> None:
    plan, run = read_plan(run_of(tmp_path)), run_of(tmp_path)
    ids = {one["step"]: str(one["job"]) for one in recorded(run)}
    assert list(ids) == [*(step.id for step in plan.steps), "finish"]
    settings = settings_of(run)
    for step in plan.steps:
        assert shards_for(step, settings.workers, 1) == (min(2, len(step.items)) if KINDS[step.kind].sharded else 1)
        told = state_of(ids[step.id], 0)
        assert all(f"afterok:{ids[need]}_*" in told for need in step.needs), told


def test_a_run_is_submitted_once(cluster: Any, held: Any, tmp_path: Path) -> None:
    before = recorded(run_of(tmp_path))
    again = cluster(*held)
    assert again.code == 0 and "submitted 0 jobs" in again.err
    assert recorded(run_of(tmp_path)) == before


def test_two_that_submit_at_once_do_it_once(cluster: Any, slurm: Path, noise: tuple[str, ...], tmp_path: Path) -> None:
    words = ("run", *noise, *JOBS, *HELD, "--detach", "--store", tmp_path)
    both = [cluster(*words, start=True), cluster(*words, start=True)]
    codes = sorted(one.wait().code for one in both)
    steps = [one["step"] for one in recorded(run_of(tmp_path))]
    assert codes in ([0, 0], [0, 2]) and len(steps) == len(set(steps))
    assert cluster("cancel", "--store", tmp_path).code == 0


def test_status_shows_the_queue_and_cancel_empties_it(cluster: Any, held: Any, tmp_path: Path) -> None:
    told = json.loads(cluster("status", "--store", tmp_path, "--json").out)
    assert all("pending" in step["queue"] for step in told["steps"])
    done = cluster("cancel", "--store", tmp_path)
    assert f"cancelled {len(recorded(run_of(tmp_path)))} jobs" in done.out
    assert not any(task.lives for task in sbatch.tasks_of([str(one["job"]) for one in recorded(run_of(tmp_path))]))
    plan = read_plan(run_of(tmp_path))
    assert jobs_of(plan, run_of(tmp_path), settings_of(run_of(tmp_path)), {}, {}, finish=False)[0].tasks == (0, 1)


def test_an_unknown_partition_is_one_line_and_nothing_stays_in_the_queue(
    cluster: Any, slurm: Path, noise: tuple[str, ...], tmp_path: Path
) -> None:
    words = ("run", *noise, *JOBS, *HELD, "--slurm", "scores.partition=nowhere", "--detach", "--store", tmp_path)
    done = cluster(*words)
    assert done.code == ExitCode.USAGE and "invalid partition" in done.err.splitlines()[-1].lower()
    assert not any(task.lives for task in sbatch.tasks_of([str(one["job"]) for one in recorded(run_of(tmp_path))]))


# ------------------------------------------------------------------------------------------------------------ real work
Action = str | int | float | list[str]  # see FAULTS


def faulty(slurm: Path, name: str, faults: list[tuple[str, int, Action]]) -> str:
    """A line of set-up for jobs in which each fault happens once."""
    place = slurm / name
    (place / "marks").mkdir(parents=True)
    (place / "sitecustomize.py").write_text(FAULTS.format(faults=faults, marks=str(place / "marks")))
    return f"setup=export PYTHONPATH={place}"


@pytest.fixture(scope="module")
def whole(bench: Any, slurm: Path) -> Any:
    """(words of a comparison, the store of it, done inline)."""
    words = (
        "run",
        "--generator",
        "medlord@smoke",
        "--generator",
        "noise",
        *bench.phantom,
        "--device",
        "cpu",
        "--batch",
        "1",
    )
    store = slurm / "inline"
    done = bench(*words, "--store", store)
    assert done.code == 0, done.err
    return words, store


@pytest.mark.slow
def test_a_comparison_with_a_killed_a_timed_out_and_a_requeued_task_ends_in_the_same_bytes(
    cluster: Any, slurm: Path, whole: Any
) -> None:
    words, inline = whole
    plan, store = read_plan(run_of(inline)), slurm / "jobs"
    key = {step.id: step.key for step in plan.steps}
    lineage = plan.step("train:medlord@smoke:diffusion").detail["lineage"]
    faults = [
        (f"{lineage}/checkpoints/", 1, ["scancel", "--signal=USR1", "ME"]),  # as Slurm does before the time limit
        (f"{key['samples:medlord@smoke']}/items/sample-00000.nii.gz", 1, ["scontrol", "requeue", "ME"]),
        (f"{key['samples:noise']}/items/sample-00001.nii.gz", 1, "SIGTERM"),
        (f"{key['conditional:medlord@smoke']}/items/", 1, "SIGKILL"),
    ]
    jobs_words = (*words, *JOBS, "--slurm", faulty(slurm, "faults", faults), "--store", store)

    first = cluster(*jobs_words)
    assert first.code == ExitCode.FAILED and "conditional:medlord@smoke" in first.err.splitlines()[-1], first.err
    assert sorted(path.name for path in (slurm / "faults/marks").iterdir()) == ["0", "1", "2", "3"]
    for step in ("train:medlord@smoke:diffusion", "samples:medlord@smoke", "samples:noise"):
        (one,) = jobs(store, step)
        assert any("Restarts=1" in state_of(one["job"], task) for task in one["tasks"]), step
    before = {step.id: len(jobs(store, step.id)) for step in plan.steps}
    (killed,) = jobs(store, "conditional:medlord@smoke")

    second = cluster(*jobs_words)
    assert second.code == 0, second.err
    again = {step for step, count in before.items() if len(jobs(store, step)) > count}
    assert (
        "images" not in again and "samples:noise" not in again and not any(step.startswith("train") for step in again)
    )
    assert len(jobs(store, "conditional:medlord@smoke")[-1]["tasks"]) < len(
        killed["tasks"]
    )  # only the task that failed
    assert made(store) == made(inline)


@pytest.mark.slow
def test_a_run_that_nobody_watches_ends_with_its_page(cluster: Any, slurm: Path, noise: tuple[str, ...]) -> None:
    store = slurm / "alone"
    assert cluster("run", *noise, *JOBS, "--detach", "--store", store).code == 0
    (last,) = jobs(store, "finish")
    subprocess.run(
        ["srun", f"--dependency=afterany:{last['job']}", "true"], check=True, timeout=400, capture_output=True
    )
    assert (run_of(store) / "results" / "scores.json").exists()
    assert list((run_of(store) / "report").glob("*.html"))
    assert json.loads(cluster("status", "--store", store, "--json").out)["finished"] is True
    assert sorted(path.stem for path in (run_of(store) / "events").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ended", "actions", "asked", "code", "advice"),
    [
        # A process that hears nothing does not save: Slurm kills it half a minute after the limit, a minute, or after scancel.
        ("TIMEOUT", [600.0], "time=1", ExitCode.FAILED, "give --slurm time=LIMIT"),
        ("CANCELLED", [["scancel", "ME"], 600.0], "time=1:00:00", ExitCode.FAILED, "it was cancelled"),
        ("FAILED: killed for memory", [3 << 30], "memory=1500M", ExitCode.MEMORY, "give --slurm memory=SIZE"),
    ],
)
def test_a_running_task_that_slurm_ends_is_named_and_alone_submitted_again(
    cluster: Any, slurm: Path, noise: tuple[str, ...], whole: Any, ended: str, actions: list[Action], asked: str, code: ExitCode,
    advice: str, request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    if code == ExitCode.MEMORY:
        request.getfixturevalue("limited_memory")
    plan, store = read_plan(run_of(whole[1])), slurm / ended.split(":")[0]
    key = plan.step("samples:noise").key
    setup = faulty(
        slurm, f"faults-{store.name}", [(f"{key}/items/sample-00001.nii.gz", 1, action) for action in actions]
    )
    words = ("run", *noise, *JOBS, "--slurm", f"samples.{asked}", "--slurm", setup, "--store", store)

    first = cluster(*words)
    last = first.err.splitlines()[-1]
    assert first.code == code and f"step samples:noise: task 1 ended {ended}" in last, first.err
    assert advice in last and "the same command submits only what failed" in last
    images = len(jobs(store, "images"))

    second = cluster(*words)
    assert second.code == 0, second.err
    assert jobs(store, "samples:noise")[-1]["tasks"] == [1] and len(jobs(store, "images")) == images
    samples = {name: data for name, data in made(whole[1]).items() if f"{key}/" in name}
    assert samples and samples.items() <= made(store).items()
