import json
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from medlord_bench.engine import lease
from medlord_bench.errors import UserError


def write(folder: Path, **holder: object) -> Path:
    path = folder / "lease.json"
    path.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "job": "", **holder}))
    return path


def test_two_runs_cannot_train_the_same_object(tmp_path: Path) -> None:
    with lease.held(tmp_path):
        with pytest.raises(UserError, match=f"another run trains this.*process {os.getpid()}"):
            with lease.held(tmp_path):
                raise AssertionError("held twice")
    assert not (tmp_path / "lease.json").exists()


def test_the_lease_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    write(tmp_path, pid=ended.pid)
    with lease.held(tmp_path):
        assert json.loads((tmp_path / "lease.json").read_text())["pid"] == os.getpid()


def test_the_lease_of_a_process_that_ended_unasked_after_is_taken_over(tmp_path: Path) -> None:
    killed = subprocess.Popen(["sleep", "100"])  # as under a container's first process, which asks after nobody
    write(tmp_path, pid=killed.pid)
    with pytest.raises(UserError, match=str(killed.pid)), lease.held(tmp_path):
        raise AssertionError
    killed.kill()
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
    with lease.held(tmp_path):
        assert json.loads((tmp_path / "lease.json").read_text())["pid"] == os.getpid()
    killed.wait()


def test_a_process_number_that_passed_to_another_program_blocks_nobody_for_long(tmp_path: Path) -> None:
    path = write(tmp_path, pid=1)
    with pytest.raises(UserError, match="process 1,"), lease.held(tmp_path):
        raise AssertionError
    old = time.time() - lease.STALE_SECONDS - 1
    os.utime(path, (old, old))
    with lease.held(tmp_path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_the_lease_of_a_dead_node_is_taken_over_only_once_its_heartbeat_is_stale(tmp_path: Path) -> None:
    path = write(tmp_path, host="another-node", pid=1)
    with pytest.raises(UserError, match="another-node"), lease.held(tmp_path):
        raise AssertionError
    old = time.time() - lease.STALE_SECONDS - 1
    os.utime(path, (old, old))
    with lease.held(tmp_path):
        assert json.loads(path.read_text())["host"] == socket.gethostname()
