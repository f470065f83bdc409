"""Child programs held to the budget: what they take together is looked at while they are waited for.

A limit of the kernel's is for each process by itself, and torch's cap is for the process that sets it; a program of
many processes, or one that brings its own torch, is therefore watched from outside.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import psutil

from medlord_bench.contracts import Run
from medlord_bench.errors import MemoryBudgetError
from medlord_bench.memory.budget import GIB
from medlord_bench.memory.hold import cap_gib, tells_exhausted

LOOK_SECONDS = 0.2
ADVICE = "give it less to do at once, a larger --memory-limit, or another device"

_peak: float | None = None  # of the programs that this process watched since `reset_peak`, GiB


def reset_peak() -> None:
    """Begin anew to record what programs take at most."""
    global _peak
    _peak = None


def peak_gib() -> float | None:
    """What the programs of this step took at most, in GiB of host memory; None where none was watched."""
    return _peak


class Watch:
    """What the program that process `pid` began takes: call `look` while waiting for it.

    Host memory is that of its whole process tree. On a CUDA device the limit is the card's: what is in use there above
    the time the watch began, by whomever. Where no limit is set the peak is only recorded.
    """

    def __init__(self, name: str, pid: int, run: Run) -> None:
        self.name, self.run = name, run
        self._process = _process(pid)
        self._next = 0.0
        self._card_start = _card_used(run.device) if run.device.startswith("cuda") else 0.0

    def look(self) -> None:
        """Raise `MemoryBudgetError` where the program has more than the limit: the caller then ends it."""
        if time.monotonic() < self._next or self._process is None:
            return
        self._next = time.monotonic() + LOOK_SECONDS
        limit = self.run.memory_limit
        cap = None if limit is None else cap_gib(self.run.device, limit)
        on_card = self.run.device.startswith("cuda")
        taken = self._host(None if on_card else cap)
        if on_card:
            taken = _card_used(self.run.device) - self._card_start
        if cap is not None and taken > cap:
            where = "of the card" if on_card else "of memory"
            raise MemoryBudgetError(
                f"{self.name}: took {taken:.2f} GiB {where}, over the cap of {cap:.4g} GiB "
                f"(--memory-limit {limit:g}), and was ended; {ADVICE}"
            )

    def judge(self, problem: str) -> None:
        """Raise `MemoryBudgetError` where a program failed for want of memory under a limit, which it inherits."""
        limit = self.run.memory_limit
        if limit is not None and tells_exhausted(problem, starved=self.run.device == "cpu"):
            peak = "" if _peak is None else f", {_peak:.2f} GiB at most when looked at"
            raise MemoryBudgetError(
                f"{self.name}: out of memory under the cap of {cap_gib(self.run.device, limit):.4g} GiB "
                f"(--memory-limit {limit:g}{peak}): {problem}; {ADVICE}"
            )

    def _host(self, cap: float | None) -> float:
        """GiB of host memory that the tree has now."""
        global _peak
        members: list[psutil.Process] = []
        with suppress(psutil.Error):
            assert self._process is not None
            members = [self._process, *self._process.children(recursive=True)]
        taken = sum(map(_resident, members)) / GIB
        if cap is not None and taken > cap:  # pages that processes share were counted for each of them: look closer
            taken = sum(map(_share, members)) / GIB
        _peak = max(_peak or 0.0, taken)
        return taken


def _process(pid: int) -> psutil.Process | None:
    with suppress(psutil.Error):
        return psutil.Process(pid)
    return None  # it has ended already


def _resident(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        resident: int = process.memory_info().rss
        return resident
    return 0


def _share(process: psutil.Process) -> int:
    """Resident memory with shared pages divided among those that share them, where the kernel tells (Linux)."""
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return _resident(process)


def _card_used(device: str) -> float:
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return (total - free) / GIB
