"""One bad case costs one case: a process that fails, dies or hangs is replaced, and nothing of it stays behind."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from medlord_bench.contracts import Failure, LabelMap, Run, Volume
from medlord_bench.errors import ExitCode, MemoryBudgetError, StepError, Stopped, UserError
from medlord_bench.plugins.segmenters.subprocess.child import Launch, segment

NAMES = {1: "aorta"}
AFFINE = np.array([[1.5, 0.2, 0, -40], [-0.2, 1.5, 0, 7], [0, 0, 3, 12], [0, 0, 0, 1]])
SCRIPT = Path(__file__).with_name("fake_child.py")


def case(task: int, seed: int = 0) -> tuple[str, Volume]:
    hu = np.random.default_rng(seed).integers(-1000, 1000, (5, 6, 7)).astype(np.int16)
    hu[0, 0, 0] = task
    return f"case-{task}-{seed}", Volume(hu, AFFINE)


def launch(timeout_s: float = 60.0, **settings: Any) -> Launch:
    return Launch("fake", [sys.executable, "-P", str(SCRIPT)], settings, timeout_s)


def results(tasks: Sequence[int], run: Run, **options: Any) -> list[LabelMap | Failure]:
    return list(segment([case(task, i) for i, task in enumerate(tasks)], launch(**options), NAMES, run))


def members(group: int, seconds: float = 20.0) -> list[str]:
    """Living processes of a process group, once there are none or the time is up: on a busy machine what was killed
    takes a moment to die."""
    deadline = time.monotonic() + seconds
    while (found := _living(group)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _living(group: int) -> list[str]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # gone meanwhile
            state, _, of = stat.read_text().rpartition(")")[2].split()[:3]
            found += [stat.parent.name] if int(of) == group and state != "Z" else []
    return found


def test_each_volume_gets_its_own_labels_in_order_from_one_process(fake_child: ModuleType, run: Run) -> None:
    cases = [case(fake_child.LABEL, seed) for seed in range(3)]
    found = list(segment(cases, launch(), NAMES, run))
    for (_, volume), labels in zip(cases, found, strict=True):
        assert isinstance(labels, LabelMap)
        assert np.array_equal(labels.labels, volume.hu > 0)
        assert np.array_equal(labels.affine, volume.affine)
        assert labels.names == NAMES
    assert len(list(run.scratch.glob("fake-*.log"))) == 1


def test_a_case_that_fails_dies_or_exits_is_a_failure_with_its_reason_and_the_others_finish(
    fake_child: ModuleType, run: Run
) -> None:
    f = fake_child
    found = results([f.FAIL, f.LABEL, f.DIE, f.EXIT, f.LABEL], run)
    reasons = [labels.reason if isinstance(labels, Failure) else None for labels in found]
    assert reasons[1] is reasons[4] is None
    assert reasons[0] == "fake: ValueError: no voxels left"
    assert reasons[2] is not None and "killed, probably because memory was short" in reasons[2]
    assert reasons[3] == "fake: SystemExit: 1"
    assert [path.name for path in run.scratch.iterdir() if path.is_dir()] == []


def test_a_hanging_case_is_killed_with_its_workers_at_the_time_out(fake_child: ModuleType, run: Run) -> None:
    pid = run.scratch / "pid"
    found = results([fake_child.HANG, fake_child.LABEL], run, timeout_s=4.0, pid=str(pid))
    assert found[0] == Failure("fake: no answer within 4 s: killed")
    assert isinstance(found[1], LabelMap)
    assert members(int(pid.read_text())) == []


def test_a_stop_ends_the_process_in_mid_case_and_loses_nothing_finished(fake_child: ModuleType, run: Run) -> None:
    pid = run.scratch / "pid"
    stopping = replace(run, stop=pid.exists)
    made = segment([case(fake_child.LABEL), case(fake_child.HANG)], launch(pid=str(pid)), NAMES, stopping)
    assert isinstance(next(made), LabelMap)
    with pytest.raises(Stopped):
        next(made)
    assert members(int(pid.read_text())) == []


def test_a_bench_that_is_killed_takes_the_process_and_its_folder_along(fake_child: ModuleType, run: Run) -> None:
    """Otherwise a GPU stays taken, and a licence number stays on disk."""
    pid = run.scratch / "pid"
    code = (
        "import logging, sys, numpy as np\nfrom pathlib import Path\n"
        "from medlord_bench.contracts import Run, Volume\nfrom medlord_bench.util.progress import SilentProgress\n"
        "from medlord_bench.plugins.segmenters.subprocess.child import Launch, segment\n"
        "script, scratch, task = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])\n"
        "run = Run('cpu', 0, SilentProgress(), logging.getLogger('x'), scratch)\n"
        "launch = Launch('fake', [sys.executable, '-P', script], {'pid': str(scratch / 'pid')}, 600)\n"
        "volume = Volume(np.full((3, 3, 3), task, np.int16), np.eye(4))\n"
        "list(segment([('a', volume)], launch, {}, run))\n"
    )
    command = [sys.executable, "-c", code, str(SCRIPT), str(run.scratch), str(fake_child.HANG)]
    bench = subprocess.Popen(command)
    while not pid.exists() or not pid.read_text():
        assert bench.poll() is None
        time.sleep(0.05)
    group = int(pid.read_text())
    assert _living(group) != []
    bench.kill()
    bench.wait()
    deadline = time.monotonic() + 30
    while members(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert members(group) == []
    assert [path for path in run.scratch.iterdir() if path.is_dir()] == []


def test_a_process_that_cannot_start_is_an_error_at_once_not_a_failure_of_every_case(run: Run) -> None:
    for start, told in (("fails", "RuntimeError: no such kernel"), ("dies", "exit code 7 (cannot map library)")):
        with pytest.raises(StepError) as error:
            results([0, 0], run, start=start)
        assert told in str(error.value) and "\n" not in str(error.value)
        assert str(next(run.scratch.glob("fake-*.log"))) in str(error.value)
    with pytest.raises(UserError, match="weights are gone") as error:
        results([0], run, start="missing")
    assert error.value.code == ExitCode.MISSING


def test_the_process_makes_no_network_call(fake_child: ModuleType, run: Run) -> None:
    (found,) = results([fake_child.NETWORK], run)
    assert found == Failure("fake: PermissionError: a segmenter's process may not make network calls")
    (log,) = run.scratch.glob("fake-*.log")
    assert "network call refused: socket.getaddrinfo" in log.read_text()


def test_a_label_map_on_another_grid_is_an_error(fake_child: ModuleType, run: Run) -> None:
    with pytest.raises(UserError, match=r"label map of fake.*\(4, 6, 7\)"):
        results([fake_child.SHORT], run)


def test_files_in_the_working_directory_do_not_pass_for_packages(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, fake_child: ModuleType
) -> None:
    (tmp_path / "nibabel.py").write_text("raise SystemExit('taken from the working directory')")
    monkeypatch.chdir(tmp_path)
    assert isinstance(results([fake_child.LABEL], run)[0], LabelMap)


@pytest.mark.parametrize(
    ("task", "said"), [("GREEDY", "took .* over the cap of 0.3 GiB"), ("STARVED", "out of memory")]
)
def test_going_over_the_memory_limit_ends_the_step_with_its_processes_and_fails_no_case(
    fake_child: ModuleType, run: Run, task: str, said: str
) -> None:
    held = replace(run, memory_limit=0.3)
    made = segment([case(fake_child.LABEL), case(getattr(fake_child, task))], launch(), NAMES, held)
    assert isinstance(next(made), LabelMap)
    with pytest.raises(MemoryBudgetError, match=f"^segmenter fake: {said}"):
        next(made)
    assert [path.name for path in run.scratch.iterdir() if path.is_dir()] == []


def test_without_a_limit_a_case_that_runs_out_of_memory_is_a_failure(fake_child: ModuleType, run: Run) -> None:
    found = results([fake_child.STARVED, fake_child.LABEL], run)
    assert isinstance(found[0], Failure) and "MemoryError: Unable to allocate 9 GiB" in found[0].reason
    assert isinstance(found[1], LabelMap)
