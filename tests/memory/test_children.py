"""A program that a plugin starts is held to the limit with all the processes it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

from medlord_bench.contracts import Run
from medlord_bench.errors import ExitCode, MemoryBudgetError
from medlord_bench.memory import children
from medlord_bench.memory.budget import GIB
from medlord_bench.memory.children import Watch

TAKE = "x = bytearray(b'1') * {mib} * 2**20\nimport time; time.sleep(60)"
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', {take!r}])"


@pytest.fixture
def started() -> Iterator[Callable[[str], int]]:
    processes: list[subprocess.Popen[bytes]] = []

    def start(code: str) -> int:
        processes.append(subprocess.Popen([sys.executable, "-c", code], start_new_session=True))
        return processes[-1].pid

    yield start
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def looked(watch: Watch, until: float, seconds: float = 30.0) -> None:
    """Look until the peak is above `until` GiB."""
    deadline = time.monotonic() + seconds
    while (children.peak_gib() or 0.0) < until and time.monotonic() < deadline:
        watch.look()
        time.sleep(0.05)


def test_the_whole_tree_counts_and_going_over_names_program_cap_and_peak(
    started: Callable[[str], int], run: Run
) -> None:
    children.reset_peak()
    pid = started(PARENT.format(take=TAKE.format(mib=300)))
    with pytest.raises(
        MemoryBudgetError, match=r"^the program x: took 0\.\d+ GiB of memory, over the cap of 0.2"
    ) as error:
        looked(Watch("the program x", pid, replace(run, memory_limit=0.2)), until=9)
    assert error.value.code == ExitCode.MEMORY
    peak = children.peak_gib()
    assert peak is not None and 0.2 < peak < 0.6


def test_without_a_limit_the_peak_is_recorded(started: Callable[[str], int], run: Run) -> None:
    children.reset_peak()
    assert children.peak_gib() is None
    looked(Watch("x", started(TAKE.format(mib=150)), run), until=0.14)
    peak = children.peak_gib()
    assert peak is not None and 0.14 < peak < 0.5


def test_a_program_that_has_ended_is_nothing_to_look_at(started: Callable[[str], int], run: Run) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    Watch("x", process.pid, replace(run, memory_limit=0.1)).look()


def test_on_a_card_what_is_in_use_above_the_start_counts(
    started: Callable[[str], int], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = [10.0]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int((80 - used[0]) * GIB), 80 * GIB))
    monkeypatch.setattr(children, "LOOK_SECONDS", 0.0)
    watch = Watch(
        "segmenter y", started("import time; time.sleep(60)"), replace(run, device="cuda:0", memory_limit=24.0)
    )
    used[0] = 32.0
    watch.look()
    used[0] = 33.0
    with pytest.raises(MemoryBudgetError, match=r"segmenter y: took 23.00 GiB of the card, over the cap of 22.5 GiB"):
        watch.look()


def test_a_program_that_fails_for_want_of_memory_ends_the_step_under_a_limit_only(run: Run) -> None:
    Watch("x", 1, run).judge("exit code 1: MemoryError")
    limited = Watch("the program x", 1, replace(run, memory_limit=3.0))
    limited.judge("exit code 1: KeyError: 'hu'")
    with pytest.raises(MemoryBudgetError, match="the program x: out of memory under the cap of 3 GiB .*: MemoryError"):
        limited.judge("exit code 1: MemoryError")
