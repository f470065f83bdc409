"""One (step, shard): who does which items, what is recorded, and how a failing step fails."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medlord_bench.contracts import Volume
from medlord_bench.engine import resolve
from medlord_bench.engine.executors.local import LocalExecutor
from medlord_bench.engine.executors.processes import WorkerProcess, start
from medlord_bench.engine.plan import Plan, sample_id
from medlord_bench.engine.planner import build
from medlord_bench.engine.run_file import RunFile
from medlord_bench.engine.run_folder import open_run, settings_of
from medlord_bench.engine.runner import carry_out
from medlord_bench.engine.steps.job import Job
from medlord_bench.engine.steps.kinds import KINDS
from medlord_bench.engine.store import Store
from medlord_bench.engine.worker import Settings, execute, missing, output, pick_device
from medlord_bench.errors import ExitCode, MemoryBudgetError, StepError, Stopped, UserError
from medlord_bench.generators.controls.noise import Noise
from medlord_bench.util.hashing import file_sha256
from medlord_bench.util.progress import SilentProgress
from medlord_bench.util.stopping import Stopper

SET = {"dataset.shape": (16, 16, 16), "dataset.n_train": 2, "dataset.n_val": 1, "dataset.n_test": 2}
STEP = "samples:noise"


@dataclasses.dataclass(frozen=True)
class Bench:
    plan: Plan
    folder: Path
    settings: Settings

    @property
    def store(self) -> Store:
        return Store(self.settings.store)

    def execute(
        self, step: str, shard: int = 0, shards: int = 1, stop: Callable[[], bool] = lambda: False, **changes: Any
    ) -> None:
        settings = self.settings.model_copy(update=changes)
        execute(self.folder, step, settings, stop, shard, shards, SilentProgress())

    def events(self) -> list[dict[str, Any]]:
        path = self.folder / "events.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def published(self) -> list[str]:
        step = self.plan.step(STEP)
        todo = missing(self.store, step)
        return [item for item in step.items if item not in todo]


@pytest.fixture
def bench_of(tmp_path: Path) -> Callable[..., Bench]:
    def make(samples: int = 10) -> Bench:
        file = RunFile(generators=("noise",), dataset="phantom", metrics=("reconstruction",), samples=samples, set=SET)
        plan = build(resolve.resolve(file))
        settings = Settings(store=tmp_path / "store", device="cpu")
        return Bench(plan, open_run(Store(settings.store), plan, file, settings), settings)

    return make


@pytest.fixture
def ready(bench_of: Callable[..., Bench]) -> Bench:
    """Everything before sampling is done."""
    bench = bench_of()
    bench.execute("images")
    bench.execute("train:noise:statistics")
    return bench


def dealt(bench: Bench, monkeypatch: pytest.MonkeyPatch, shards: int, batch: int) -> list[list[int]]:
    """The sample indices that each shard is given."""
    given: list[list[int]] = []
    names = [sample_id(index) for index in range(100)]
    monkeypatch.setattr(KINDS["samples"], "run", lambda job, items: given.append([names.index(i) for i in items]))
    for shard in range(shards):
        bench.execute(STEP, shard, shards, batch=batch)
    return given


def test_items_are_dealt_once_each(ready: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dealt(ready, monkeypatch, shards=3, batch=1) == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]


def test_whole_batches_are_dealt_so_that_the_same_items_share_one_whatever_the_workers(
    ready: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dealt(ready, monkeypatch, shards=2, batch=4) == [[0, 1, 2, 3, 8, 9], [4, 5, 6, 7]]


def test_a_shard_without_items_does_and_records_nothing(ready: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ready.events()
    assert dealt(ready, monkeypatch, shards=11, batch=10) == [list(range(10))]
    assert sum(event["event"] == "start" for event in ready.events()) == sum(e["event"] == "start" for e in before) + 1


def test_only_what_is_missing_is_done(ready: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ready.execute(STEP)
    items = output(ready.store, ready.plan.step(STEP)).items
    (items / "sample-00003.json").unlink()
    assert dealt(ready, monkeypatch, shards=1, batch=1) == [[3]]


def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The request indices of each call of `Noise.sample` from now on."""
    calls: list[list[int]] = []
    real = Noise.sample

    def sample(self: Noise, weights: Any, requests: Any, run: Any) -> Iterator[Any]:
        calls.append([request.index for request in requests])
        return real(self, weights, requests, run)

    monkeypatch.setattr(Noise, "sample", sample)
    return calls


def test_a_batch_that_was_broken_off_is_drawn_whole_and_only_what_is_missing_is_published(
    ready: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.execute(STEP, batch=4)
    made = output(ready.store, ready.plan.step(STEP))
    times = {path.name: path.stat().st_mtime_ns for path in made.items.iterdir()}
    (made.items / "sample-00006.json").unlink()
    calls = asked(monkeypatch)
    ready.execute(STEP, batch=4)
    assert calls == [[4, 5, 6, 7]]
    changed = {path.name for path in made.items.iterdir() if times[path.name] != path.stat().st_mtime_ns}
    assert changed == {"sample-00006.json", "sample-00006.nii.gz"}


def test_a_sample_is_the_same_whichever_shard_makes_it(ready: Bench, tmp_path: Path) -> None:
    ready.execute(STEP)
    made = output(ready.store, ready.plan.step(STEP)).items
    whole = {path.name: path.read_bytes() for path in made.glob("*.nii.gz")}
    for path in made.iterdir():
        path.unlink()
    for shard in (2, 0, 1):
        ready.execute(STEP, shard, 3)
    assert {path.name: path.read_bytes() for path in made.glob("*.nii.gz")} == whole


def test_a_stop_ends_after_the_item_in_hand_and_is_recorded(ready: Bench) -> None:
    with pytest.raises(Stopped, match="stopped after sample-00000, saved") as stopped:
        ready.execute(STEP, stop=lambda: True)
    assert stopped.value.code == ExitCode.REQUEUE
    assert ready.published() == ["sample-00000"]
    assert ready.events()[-1]["event"] == "stopped"
    ready.execute(STEP)
    assert len(ready.published()) == 10
    done = ready.events()[-1]
    assert (done["event"], done["items"], done["device"]) == ("done", 9, "cpu")
    assert done["seconds"] >= 0


def test_the_manifest_holds_every_item_once_all_are_there(ready: Bench) -> None:
    ready.execute(STEP)
    made = output(ready.store, ready.plan.step(STEP))
    manifest = json.loads((made.path / "manifest.json").read_text())
    assert sorted(manifest) == [sample_id(index) for index in range(10)]
    files = {**made.sidecar("sample-00004").files, ".json": file_sha256(made.file("sample-00004", ".json"))}
    assert manifest["sample-00004"] == files


def test_a_sidecar_says_which_seed_and_device_made_a_sample(ready: Bench) -> None:
    ready.execute(STEP)
    made = output(ready.store, ready.plan.step(STEP))
    facts = [made.sidecar(sample_id(index)).facts for index in range(10)]
    assert len({fact["seed"] for fact in facts}) == 10
    assert {fact["device"] for fact in facts} == {"cpu"}


def test_the_object_says_what_its_key_was_made_from(ready: Bench) -> None:
    ready.execute(STEP)
    step = ready.plan.step(STEP)
    assert json.loads((output(ready.store, step).path / "step.json").read_text()) == step.identity


def test_too_few_volumes_name_the_first_that_is_missing(ready: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Noise.sample

    def few(self: Noise, weights: Any, requests: Any, run: Any) -> Iterator[Any]:
        return iter(list(real(self, weights, requests, run))[:2])

    monkeypatch.setattr(Noise, "sample", few)
    with pytest.raises(StepError, match="fewer volumes than requested .sample-00002.") as error:
        ready.execute(STEP)
    assert error.value.code == ExitCode.FAILED
    assert ready.published() == ["sample-00000", "sample-00001"]


@pytest.mark.parametrize("message", ["CUDA out of memory. Tried", "DefaultCPUAllocator: can't allocate memory"])
def test_running_out_of_memory_is_one_line_with_advice(
    ready: Bench, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    kind = type("OutOfMemoryError" if "CUDA" in message else "RuntimeError", (RuntimeError,), {})

    def handler(job: Job, items: Any) -> None:
        raise kind(f"{message}\nand a long story")

    monkeypatch.setattr(KINDS["samples"], "run", handler)
    with pytest.raises(StepError, match="out of memory on cpu .*use a smaller --batch") as error:
        ready.execute(STEP)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("could not create a primitive"), SystemExit(1)])
def test_under_a_limit_running_out_of_memory_is_exit_4_with_cap_and_peak_and_is_recorded(
    ready: Bench, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def handler(job: Job, items: Any) -> None:
        assert job.run.memory_limit == 64
        raise error

    monkeypatch.setattr(KINDS["samples"], "run", handler)
    with pytest.raises(
        MemoryBudgetError, match=r"step samples:noise: out of memory on cpu, cap 64 GiB, peak so far"
    ) as it:
        ready.execute(STEP, memory_limit=64.0)
    assert it.value.code == ExitCode.MEMORY
    assert "use --batch 1, or smaller tiles" in str(it.value) and "\n" not in str(it.value)
    assert ready.events()[-1]["why"] == str(it.value)


def test_a_forecasts_advice_is_given_where_there_is_one(ready: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(job: Job, items: Any) -> None:
        raise MemoryError

    said = {"stage": "sample", "allocated_gib": 1.0, "workspace_gib": 0.0, "total_gib": 1.55, "advice": "set tiles=2"}
    forecast = {"budget_gib": 24.0, "steps": {STEP: said}}
    (ready.folder / "forecast.json").write_text(json.dumps(forecast))
    monkeypatch.setattr(KINDS["samples"], "run", handler)
    with pytest.raises(MemoryBudgetError, match=r"step samples:noise \(sample\): .*; set tiles=2, or a larger"):
        ready.execute(STEP, memory_limit=64.0)


def test_what_a_step_took_stays_with_what_it_published_and_in_the_events(ready: Bench) -> None:
    forecast = {"budget_gib": 24.0, "steps": {STEP: {"allocated_gib": 1.0, "total_gib": 1.55, "advice": None}}}
    (ready.folder / "forecast.json").write_text(json.dumps(forecast))
    ready.execute(STEP)
    made = output(ready.store, ready.plan.step(STEP))
    for memory in (made.sidecar("sample-00003").facts["memory"], ready.events()[-1]["memory"]):
        assert (memory["predicted"], memory["predicted_allocated"]) == (1.55, 1.0)
        assert memory["resident"] > 0 and memory["card"] and memory["evidence"] == "measured-on-cpu"
    weights = output(ready.store, ready.plan.step("train:noise:statistics")).sidecar("weights")
    assert weights.facts["memory"]["evidence"] == "measured-on-cpu"


def test_an_unexpected_error_stays_what_it_is_and_is_recorded(ready: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(job: Job, items: Any) -> None:
        raise ZeroDivisionError("by nobody")

    monkeypatch.setattr(KINDS["samples"], "run", handler)
    with pytest.raises(ZeroDivisionError):
        ready.execute(STEP)
    assert ready.events()[-1]["why"] == "by nobody"


@pytest.mark.parametrize(
    ("hu", "reason"),
    [
        (np.full((16, 16, 16), -1000, np.int16), "constant (-1000 HU)"),
        (np.arange(16**3, dtype=np.int16).reshape(16, 16, 16) % 3 - 1, "scaled to [0, 1] or [-1, 1], not HU"),
        (np.arange(8**3, dtype=np.int16).reshape(8, 8, 8), "shape (8, 8, 8), asked for (16, 16, 16)"),
        (np.arange(16**3, dtype=np.int16).reshape(16, 16, 16) % 4, None),
    ],
)
def test_a_volume_that_cannot_be_a_ct_is_published_as_failed_with_its_reason(
    ready: Bench, monkeypatch: pytest.MonkeyPatch, hu: np.ndarray, reason: str | None
) -> None:
    made = lambda self, weights, requests, run: iter([Volume(hu, np.eye(4))] * len(requests))  # noqa: E731
    monkeypatch.setattr(Noise, "sample", made)
    ready.execute(STEP)
    failed = output(ready.store, ready.plan.step(STEP)).sidecar("sample-00000").failed
    assert (failed is None) if reason is None else (reason in str(failed))


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_a_mistake(device: str) -> None:
    with pytest.raises(UserError, match=f"--device {device}: "):
        pick_device(device)
    assert pick_device("cpu") == "cpu"


# ------------------------------------------------------------------------------------------- workers in other processes
def local(ready: Bench, monkeypatch: pytest.MonkeyPatch, *commands: str) -> LocalExecutor:
    """A local executor whose workers execute these shell commands in place of their task."""

    def shell(self: LocalExecutor, number: int, log: Path) -> WorkerProcess:
        return start(["sh", "-c", f"read task; {commands[number]}"], log, os.environ)

    monkeypatch.setattr(LocalExecutor, "_start", shell)
    executor = LocalExecutor(ready.settings)
    executor.forks = False
    return executor


def test_workers_told_to_stop_while_they_were_starting_count_as_stopped(
    ready: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = local(ready, monkeypatch, "exec sleep 60", "exec sleep 60")
    with pytest.raises(Stopped, match="saved"):
        executor.map(ready.folder, STEP, 2, lambda: True)


def test_a_worker_that_fails_stops_the_others_and_its_own_line_is_the_error(
    ready: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ready.folder / "logs" / "samples_noise.0.log"
    log.write_text("Error: of an earlier run\n")
    executor = local(ready, monkeypatch, f"echo 'Error: weights: not found' >> '{log}'; exit 3", "exec sleep 60")
    with pytest.raises(UserError, match="a worker ended with 3: weights: not found") as error:
        executor.map(ready.folder, STEP, 2, lambda: False)
    assert error.value.code == ExitCode.MISSING


def test_a_killed_worker_is_a_failed_step(ready: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = local(ready, monkeypatch, "kill -9 $$", "true")
    with pytest.raises(StepError, match="a worker was ended by SIGKILL .*; see"):
        executor.map(ready.folder, STEP, 2, lambda: False)


def test_a_worker_over_the_limit_ends_the_step_with_its_own_line(ready: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    log = ready.folder / "logs" / "samples_noise.0.log"
    executor = local(ready, monkeypatch, f"echo 'Error: step samples:noise: out of memory' >> '{log}'; exit 4")
    with pytest.raises(MemoryBudgetError, match="^step samples:noise: out of memory$"):
        executor.map(ready.folder, STEP, 1, lambda: False)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("echo 'libgomp: Thread creation failed: no resource' >> LOG; exit 1", "libgomp: Thread creation failed"),
        ('echo "what():  std::bad_alloc" >> LOG; kill -ABRT $$', "its process was ended by SIGABRT"),
    ],
)
def test_a_worker_that_a_library_ends_for_want_of_memory_is_exit_4_under_a_limit_only(
    ready: Bench, monkeypatch: pytest.MonkeyPatch, end: str, said: str
) -> None:
    command = end.replace("LOG", f"'{ready.folder / 'logs' / 'samples_noise.0.log'}'")
    executor = local(ready, monkeypatch, command)
    with pytest.raises(StepError, match="a worker (ended with 1: see|was ended by SIGABRT)"):
        executor.map(ready.folder, STEP, 1, lambda: False)
    executor.close()
    executor.settings = ready.settings.model_copy(update={"memory_limit": 2.0})
    with pytest.raises(MemoryBudgetError, match=f"^step samples:noise: out of memory on cpu, cap 2 GiB .{said}"):
        executor.map(ready.folder, STEP, 1, lambda: False)


@pytest.mark.parametrize(("limit", "name"), [("auto", "inline"), (None, "inline"), (3.0, "local")])
def test_under_a_limit_on_a_cpu_steps_work_in_processes_of_their_own(
    ready: Bench, monkeypatch: pytest.MonkeyPatch, limit: Any, name: str
) -> None:
    class Noted(Exception):
        pass

    def load(kind: str, wanted: str) -> Any:
        raise Noted(wanted)

    monkeypatch.setattr("medlord_bench.engine.runner.registry.load", load)
    with pytest.raises(Noted, match=name):
        carry_out(ready.plan, ready.folder, ready.settings.model_copy(update={"memory_limit": limit}), Stopper())


def test_settings_of_a_run_from_before_the_limit_are_read_as_auto(ready: Bench) -> None:
    path = ready.folder / "settings.json"
    known = json.loads(path.read_text())
    assert known.pop("memory_limit") == "auto"
    path.write_text(json.dumps(known))
    assert settings_of(ready.folder).memory_limit == "auto"
