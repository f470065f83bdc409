"""Workers that last: what a step does in them, how one dies, and what becomes of the others and of the next step."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from medlord_bench.cli import serve
from medlord_bench.engine import resolve
from medlord_bench.engine.executors import local
from medlord_bench.engine.executors.local import LocalExecutor
from medlord_bench.engine.executors.processes import apart
from medlord_bench.engine.plan import read_plan
from medlord_bench.engine.planner import build
from medlord_bench.engine.run_file import RunFile
from medlord_bench.engine.run_folder import open_run
from medlord_bench.engine.store import Store
from medlord_bench.engine.worker import Settings, execute, missing
from medlord_bench.errors import ExitCode, MemoryBudgetError, StepError, Stopped
from medlord_bench.util.files import write_text
from medlord_bench.util.progress import SilentProgress

STEP, SAMPLES = "samples:command", 4
SET = {"dataset.shape": (16, 16, 16), "dataset.n_train": 2, "dataset.n_val": 1, "dataset.n_test": 2}
# Notes which process called it, and whose child that is. No NumPy: it would cost most of each test's time.
PROGRAM = """
import array, json, os, random, signal, sys, time
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
index, worker = int(given["--index"]), os.getppid()
run = int(open(f"/proc/{worker}/stat").read().rpartition(")")[2].split()[1])
note = {"index": index, "worker": worker, "run": run, "threads": os.environ.get("OMP_NUM_THREADS")}
with open(__file__ + ".notes", "a") as notes:
    notes.write(json.dumps(note) + "\\n")
BODY
draw = random.Random(index)
header = repr({"descr": "<i2", "fortran_order": False, "shape": (16, 16, 16)}).encode()
header += b" " * (-(len(header) + 11) % 64) + b"\\n"
data = array.array("h", [draw.randrange(-1000, 1000) for _ in range(16**3)]).tobytes()
open(given["--out"], "wb").write(b"\\x93NUMPY\\x01\\x00" + len(header).to_bytes(2, "little") + header + data)
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no worker is forked")


@dataclass(frozen=True)
class Ready:
    """A run of a user's program, whose images are prepared."""

    folder: Path
    settings: Settings
    step: Any
    script: Path

    def notes(self) -> list[dict[str, Any]]:
        path = Path(f"{self.script}.notes")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def left(self) -> list[str]:
        return missing(Store(self.settings.store), self.step)

    def log(self, shard: int) -> str:
        return (self.folder / "logs" / f"samples_command.{shard}.log").read_text()


def never() -> bool:
    return False


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workers") / "store"


@pytest.fixture
def ready(store: Path, tmp_path: Path) -> Callable[..., Ready]:
    def make(body: str = "", **changes: Any) -> Ready:
        script = tmp_path / "sampler.py"
        script.write_text(PROGRAM.replace("BODY", body))
        program = f"{sys.executable} -S {script} --index {{index}} --out {{out}}"
        given = {"command.command": program, "command.output": ".npy", "command.environment": "OMP_NUM_THREADS"}
        file = RunFile(
            generators=("command",), dataset="phantom", metrics=("reconstruction",), samples=SAMPLES, set=SET | given
        )
        plan = build(resolve.resolve(file))
        settings = Settings(store=store, device="cpu", batch=1, workers=2, executor="local", **changes)
        folder = open_run(Store(store), plan, file, settings)
        execute(folder, "images", settings, never, progress=SilentProgress())
        return Ready(folder, settings, plan.step(STEP), script)

    return make


@pytest.fixture
def executor_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., LocalExecutor]]:
    made: list[LocalExecutor] = []
    stay = serve.stay

    def quiet(tasks: int, answers: int) -> None:
        faulthandler.disable()  # pytest's writes to the terminal
        stay(tasks, answers)

    monkeypatch.setattr(serve, "stay", quiet)
    # The little that these steps need.
    monkeypatch.setattr(serve, "LIBRARIES", ("torch", "medlord_bench.engine.steps.kinds", "medlord_bench.cli.worker"))

    def make(ready: Ready, forks: bool = True) -> LocalExecutor:
        made.append(LocalExecutor(ready.settings))
        made[-1].forks = forks
        return made[-1]

    yield make
    for executor in made:
        executor.close()


def unpublish(ready: Ready) -> None:
    for path in Store(ready.settings.store).object("samples", ready.step.key).items.iterdir():
        path.unlink()


@pytest.mark.parametrize("forks", [True, False])
def test_workers_do_their_shard_of_each_step(ready: Any, executor_of: Any, forks: bool) -> None:
    run = ready()
    executor = executor_of(run, forks)
    for shards in (2, 1):
        executor.map(run.folder, STEP, shards, never)
        assert run.left() == []
        unpublish(run)
    first, second = (worker.process.pid for worker in executor.workers)
    by = [{note["worker"] for note in run.notes()[start : start + SAMPLES]} for start in (0, SAMPLES)]
    assert by == [{first, second}, {first}]
    assert {note["run"] for note in run.notes()} == {os.getpid()}


def test_under_a_limit_each_step_has_workers_of_its_own(ready: Any, executor_of: Any) -> None:
    run = ready(memory_limit=6.0)
    executor = executor_of(run)
    for _ in range(2):
        executor.map(run.folder, STEP, 1, never)
        unpublish(run)
    assert len({note["worker"] for note in run.notes()}) == 2 and not any(one.lives for one in executor.workers)


MEETING = """
until = time.monotonic() + 120
while len({json.loads(line)["worker"] for line in open(__file__ + ".notes")}) < 2:
    time.sleep(0.02)
    if time.monotonic() > until:
        sys.exit("no other step was at work")
"""


def with_another_step(run: Ready) -> Any:
    """Adds a contestant, with a step like `STEP`, to the plan; returns the step."""
    plan = read_plan(run.folder)
    (first,) = plan.contestants
    config = first.config | {"command": first.config["command"] + " --other yes"}
    second = first.model_copy(update={"name": "other", "config": config})
    plugin = run.step.plugin.model_copy(update={"config": config})
    made = {"id": "samples:other", "contestant": "other", "plugin": plugin, "key": uuid4().hex * 2}
    other = run.step.model_copy(update=made)
    both = plan.model_copy(update={"contestants": (first, second), "steps": (*plan.steps, other)})
    write_text(run.folder / "plan.json", both.model_dump_json())
    return other


@pytest.mark.parametrize("forks", [True, False])
def test_steps_that_do_not_need_each_other_are_at_work_at_once(ready: Any, executor_of: Any, forks: bool) -> None:
    run = ready(MEETING)
    other, ended = with_another_step(run), []
    executor_of(run, forks).carry_out(run.folder, [run.step, other], lambda _: 1, ended.append, never)
    assert run.left() == missing(Store(run.settings.store), other) == []
    assert {step.id for step in ended} == {STEP, other.id}


def test_when_one_step_fails_the_other_is_stopped_and_keeps_what_it_has(ready: Any, executor_of: Any) -> None:
    run = ready(f"{MEETING}\nif '--other' in given: sys.exit('no such model')\nif index: time.sleep(20)")
    other = with_another_step(run)
    with pytest.raises(StepError, match=r"^step samples:other: a worker ended with 1: .*no such model"):
        executor_of(run).carry_out(run.folder, [run.step, other], lambda _: 1, lambda _: None, never)
    assert "sample-00001" in run.left()


def test_work_apart_leaves_this_process_as_it_was_and_its_errors_are_raised_here(tmp_path: Path) -> None:
    apart(refuse, tmp_path / "ran", "")
    assert int((tmp_path / "ran").read_text()) != os.getpid()
    with pytest.raises(MemoryBudgetError, match="^too large$") as error:
        apart(refuse, tmp_path / "ran", "too large")
    assert error.value.code == ExitCode.MEMORY


def refuse(ran: Path, why: str) -> None:
    ran.write_text(str(os.getpid()))
    if why:
        raise MemoryBudgetError(why)


def test_a_forked_worker_computes_with_openmp_threads_although_the_run_has_done_so() -> None:
    code = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from medlord_bench.cli import serve\n"
        "from medlord_bench.engine.executors.processes import fork\n"
        "serve.LIBRARIES = ()\n"
        "torch.set_num_threads(2)\n"
        "torch.randn(10**6).exp()\n"
        "serve.stay = lambda tasks, answers: print(torch.zeros(10**6).exp().sum().item())\n"
        "print(fork(Path(sys.argv[1]), []).process.wait(), torch.zeros(10**6).exp().sum().item())"
    )
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", code, f"{folder}/log"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.stdout == "0 1000000.0\n", done.stderr
        assert Path(f"{folder}/log").read_text() == "1000000.0\n"


def test_the_cores_are_divided_among_the_workers_of_a_step(
    ready: Any, executor_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local.os, "sched_getaffinity", lambda _: {*range(6)})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    run = ready()
    executor = executor_of(run)
    for shards in (2, 1):
        executor.map(run.folder, STEP, shards, never)
        unpublish(run)
    assert [note["threads"] for note in run.notes()] == ["3"] * SAMPLES + ["6"] * SAMPLES


def test_threads_are_limited_in_libraries_that_are_loaded_already() -> None:
    code = (
        "import os, numpy, torch, threadpoolctl\n"
        "from medlord_bench.cli.serve import _limit_threads\n"
        "_limit_threads(3)\n"
        "print(torch.get_num_threads(), {one['num_threads'] for one in threadpoolctl.threadpool_info()})"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "3 {3}", done.stderr


@pytest.mark.parametrize("given", [{"threads": 2}, {}])
def test_the_users_number_of_threads_is_kept(
    ready: Any, executor_of: Any, monkeypatch: pytest.MonkeyPatch, given: dict[str, int]
) -> None:
    if not given:
        monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert executor_of(ready(**given))._threads(2) is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_worker_that_dies_is_one_line_and_the_others_stop(
    ready: Any, executor_of: Any, number: signal.Signals
) -> None:
    run = ready(f"if index == 1: os.kill(worker, {int(number)})\nif index == 2: time.sleep(20)")
    how = f"a worker was ended by {number.name}.*; see .*samples_command.1.log; the same command resumes"
    with pytest.raises(StepError, match=f"^step {STEP}: {how}$"):
        executor_of(run).map(run.folder, STEP, 2, never)
    assert "sample-00001" in run.left() and len(run.left()) >= 3
    assert "stopped" in run.log(0)


def test_the_program_of_a_worker_that_is_killed_ends_too(ready: Any, executor_of: Any) -> None:
    run = ready("open(__file__ + '.pid', 'w').write(str(os.getpid()))\n"
                "os.kill(worker, signal.SIGKILL)\ntime.sleep(40)")  # fmt: skip
    with pytest.raises(StepError, match="SIGKILL .often by a system without free memory"):
        executor_of(run).map(run.folder, STEP, 1, never)
    await_end_of({int(Path(f"{run.script}.pid").read_text())})


def test_a_worker_that_stays_and_dies_is_one_line_too(ready: Any, executor_of: Any) -> None:
    run = ready("if index == 1: os.kill(worker, signal.SIGSEGV)")
    with pytest.raises(StepError, match=f"^step {STEP}: a worker was ended by SIGSEGV; see .*[.]log; the same "):
        executor_of(run, forks=False).map(run.folder, STEP, 1, never)
    assert len(run.left()) == 3


def test_after_a_worker_died_another_does_the_next_step(ready: Any, executor_of: Any) -> None:
    run = ready("if index == 1 and not os.path.exists(__file__ + '.died'):\n"
                "    open(__file__ + '.died', 'w')\n    os.kill(worker, signal.SIGKILL)")  # fmt: skip
    executor = executor_of(run)
    with pytest.raises(StepError):
        executor.map(run.folder, STEP, 2, never)
    executor.map(run.folder, STEP, 2, never)
    assert run.left() == []


def test_under_a_limit_a_worker_that_a_library_ends_is_over_the_budget(ready: Any, executor_of: Any) -> None:
    run = ready(f"if index == 1: os.kill(worker, {int(signal.SIGABRT)})", memory_limit=6.0)
    with pytest.raises(MemoryBudgetError, match="cap 6 GiB .its process was ended by SIGABRT, see ") as error:
        executor_of(run).map(run.folder, STEP, 1, never)
    assert error.value.code == ExitCode.MEMORY and "\n" not in str(error.value)


@pytest.mark.parametrize("forks", [True, False])
def test_workers_that_are_told_to_stop_keep_what_is_published(ready: Any, executor_of: Any, forks: bool) -> None:
    run = ready("if index > 1: time.sleep(20)")
    with pytest.raises(Stopped, match=f"step {STEP}: stopped, saved"):
        executor_of(run, forks).map(run.folder, STEP, 2, lambda: len(run.notes()) == SAMPLES)
    assert run.left() == ["sample-00002", "sample-00003"]
    assert all("stopped while a program ran" in run.log(shard) for shard in range(2))


@pytest.mark.parametrize("forks", [True, False])
def test_a_stop_before_a_worker_has_begun_is_not_lost(ready: Any, executor_of: Any, forks: bool) -> None:
    run = ready("time.sleep(20)")
    with pytest.raises(Stopped):
        executor_of(run, forks).map(run.folder, STEP, 2, lambda: True)
    assert len(run.left()) == SAMPLES


@pytest.mark.parametrize("forks", [True, False])
def test_a_failing_step_has_its_own_line_and_exit_code(ready: Any, executor_of: Any, forks: bool) -> None:
    run = ready("sys.exit('no such model')")
    with pytest.raises(StepError, match=r"a worker ended with 1: .*no such model"):
        executor_of(run, forks).map(run.folder, STEP, 1, never)


def await_end_of(pids: set[int]) -> None:
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "a worker works on unseen"
        time.sleep(0.05)


@pytest.mark.parametrize("forks", [True, False])
def test_workers_of_a_run_that_was_killed_stop_and_end(ready: Any, executor_of: Any, forks: bool) -> None:
    run = ready("if index == 1: os.kill(run, signal.SIGKILL)\ntime.sleep(20)")
    pid = os.fork()
    if not pid:
        executor_of(run, forks).map(run.folder, STEP, 2, never)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    await_end_of({note["worker"] for note in run.notes()})
    assert len(run.left()) == SAMPLES


@pytest.mark.parametrize("forks", [True, False])
def test_idle_workers_of_a_run_that_was_killed_end(ready: Any, executor_of: Any, forks: bool) -> None:
    run = ready()
    pid = os.fork()
    if not pid:
        executor_of(run, forks).map(run.folder, STEP, 2, never)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert run.left() == []
    await_end_of({note["worker"] for note in run.notes()})
