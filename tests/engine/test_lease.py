import json
import logging
import os
import shutil
import socket
import subprocess
import threading
import time
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from medlord_bench.contracts import Run
from medlord_bench.engine import lease
from medlord_bench.errors import StepError, UserError
from medlord_bench.util.files import publish
from medlord_bench.util.progress import make_progress


def write(folder: Path, **holder: object) -> Path:
    path = folder / "lease.1.json"
    path.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "job": "", **holder}))
    return path


def test_two_runs_cannot_train_the_same_object(tmp_path: Path) -> None:
    with lease.held(tmp_path):
        with pytest.raises(UserError, match=f"another run trains this.*process {os.getpid()}"):
            with lease.held(tmp_path):
                raise AssertionError("held twice")
    assert [path.name for path in tmp_path.iterdir()] == ["lease.1.json"]
    with lease.held(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["lease.2.json"]


def test_the_lease_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    write(tmp_path, pid=ended.pid)
    with lease.held(tmp_path):
        assert json.loads((tmp_path / "lease.2.json").read_text())["pid"] == os.getpid()


def test_the_lease_of_a_process_that_ended_unasked_after_is_taken_over(tmp_path: Path) -> None:
    killed = subprocess.Popen(["sleep", "100"])  # as under a container's first process, which asks after nobody
    write(tmp_path, pid=killed.pid)
    with pytest.raises(UserError, match=str(killed.pid)), lease.held(tmp_path):
        raise AssertionError
    killed.kill()
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
    with lease.held(tmp_path):
        assert json.loads((tmp_path / "lease.2.json").read_text())["pid"] == os.getpid()
    killed.wait()


def test_a_process_number_that_passed_to_another_program_blocks_nobody_for_long(tmp_path: Path) -> None:
    path = write(tmp_path, pid=1)
    with pytest.raises(UserError, match="process 1,"), lease.held(tmp_path):
        raise AssertionError
    old = time.time() - lease.STALE_SECONDS - 1
    os.utime(path, (old, old))
    with lease.held(tmp_path):
        assert json.loads((tmp_path / "lease.2.json").read_text())["pid"] == os.getpid()


def test_the_lease_of_a_dead_node_is_taken_over_only_once_its_heartbeat_is_stale(tmp_path: Path) -> None:
    path = write(tmp_path, host="another-node", pid=1)
    with pytest.raises(UserError, match="another-node"), lease.held(tmp_path):
        raise AssertionError
    old = time.time() - lease.STALE_SECONDS - 1
    os.utime(path, (old, old))
    with lease.held(tmp_path):
        assert json.loads((tmp_path / "lease.2.json").read_text())["host"] == socket.gethostname()


ROUNDS = {"fast": 40, "all": 10_000}


def holders(folder: Path, barrier: Any, rounds: int, found: Any) -> None:
    """In every round: all processes take a stale lease at once, and the winner holds it until all have tried."""
    for number in range(rounds):
        place = folder / str(number)
        barrier.wait()
        with suppress(UserError), lease.held(place):
            with found.get_lock():
                found[number] += 1
            barrier.wait()
            continue
        barrier.wait()


def comers_and_goers(folder: Path, rounds: int, doubles: Any) -> None:
    """Take and release one lease again and again; a file that only one holder can create shows a second holder."""
    for _ in range(rounds):
        with suppress(UserError), lease.held(folder):
            try:
                os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                doubles.value += 1
            (folder / "inside").unlink(missing_ok=True)


@pytest.mark.parametrize("amount", ["fast", pytest.param("all", marks=pytest.mark.slow)])
def test_a_stale_lease_has_one_new_holder_of_eight(amount: str, tmp_path: Path) -> None:
    rounds, context = ROUNDS[amount], get_context("fork")
    ended = subprocess.Popen(["true"])
    ended.wait()
    for number in range(rounds):
        (tmp_path / str(number)).mkdir()
        write(tmp_path / str(number), pid=ended.pid)
    barrier, found = context.Barrier(8), context.Array("i", rounds)
    workers = [context.Process(target=holders, args=(tmp_path, barrier, rounds, found)) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert list(found) == [1] * rounds


@pytest.mark.parametrize("amount", ["fast", pytest.param("all", marks=pytest.mark.slow)])
def test_a_lease_that_comes_and_goes_never_has_two_holders(amount: str, tmp_path: Path) -> None:
    context = get_context("fork")
    doubles = context.Value("i", 0)
    arguments = (tmp_path, ROUNDS[amount] // 8, doubles)
    workers = [context.Process(target=comers_and_goers, args=arguments) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert doubles.value == 0


def test_a_holder_that_slept_while_another_took_over_saves_nothing_more(tmp_path: Path) -> None:
    run = Run(device="cpu", seed=0, progress=make_progress(), log=logging.getLogger(), scratch=tmp_path)
    with lease.held(tmp_path) as sleeper:
        sleeper.check()
        old = time.time() - lease.STALE_SECONDS - 1
        os.utime(sleeper.path, (old, old))
        with lease.held(tmp_path) as other:
            other.check()
            with pytest.raises(StepError, match="another run took over this training.*saves nothing more"):
                sleeper.check()
            stop = sleeper.guarded(run).stop
            assert stop() is False  # looked less than a second ago
            sleeper._checked -= lease.CHECK_SECONDS
            with pytest.raises(StepError):
                stop()
    assert json.loads(other.path.read_text()) == {"released": True}
    assert not sleeper.path.exists()


def test_what_a_sleeper_had_begun_to_write_is_not_renamed_into_place(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.pt"
    with lease.held(tmp_path) as sleeper:

        def write(temporary: Path) -> None:
            temporary.write_text("old")
            write_lease = tmp_path / f"lease.{sleeper.number + 1}.json"  # another process takes over meanwhile
            write_lease.write_text("{}")

        publish(tmp_path / "before", lambda temporary: temporary.write_text("mine"))
        with pytest.raises(StepError, match="another run took over"):
            publish(path, write)
    assert not path.exists() and (tmp_path / "before").exists()
    publish(path, lambda temporary: temporary.write_text("free again"))


def test_the_same_number_in_a_folder_made_anew_is_another_lease(tmp_path: Path) -> None:
    with lease.held(tmp_path / "t") as sleeper:
        shutil.rmtree(tmp_path / "t")  # its holder has published and removed it
        with lease.held(tmp_path / "t") as other:
            assert other.number == sleeper.number
            with pytest.raises(StepError, match="another run took over"):
                sleeper.check()


def test_the_age_of_a_heartbeat_is_by_the_clock_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, host="another-node", pid=1)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    with pytest.raises(UserError, match="another-node"), lease.held(tmp_path):
        raise AssertionError


def test_a_job_that_was_requeued_from_a_dead_node_takes_its_own_lease_over_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, host="a-dead-node", pid=1, job="17")
    with pytest.raises(lease.HeldError, match="a-dead-node"), lease.held(tmp_path):
        raise AssertionError
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    start = time.monotonic()
    with lease.held(tmp_path) as held:
        assert held.number == 2
    assert time.monotonic() - start < 1


def test_another_job_waits_until_the_heartbeat_of_a_dead_node_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "STALE_SECONDS", 1.5)
    monkeypatch.setattr(lease, "CHECK_SECONDS", 0.1)
    monkeypatch.setenv("SLURM_JOB_ID", "18")
    write(tmp_path, host="a-dead-node", pid=1, job="17")
    with lease.held(tmp_path) as held:
        assert held.number == 2


def test_another_job_gives_up_at_once_where_the_holder_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "CHECK_SECONDS", 0.1)
    monkeypatch.setenv("SLURM_JOB_ID", "18")
    path = write(tmp_path, host="another-node", pid=1, job="17")

    def beat() -> None:
        time.sleep(0.3)
        os.utime(path)

    thread = threading.Thread(target=beat)
    thread.start()
    with pytest.raises(lease.HeldError, match="another-node"), lease.held(tmp_path):
        raise AssertionError
    thread.join()
