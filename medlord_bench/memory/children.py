"""Child programs under the memory limit: their total memory is checked while the bench waits for them.

The kernel's limit applies to each process separately, and torch's cap to the process that sets it; a program of
many processes, or one with its own torch, is therefore monitored from outside.
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
ADVICE = "reduce the amount of work at once, or use a larger --memory-limit or another device"

_peak: float | None = None  # of the programs that this process monitored since `reset_peak`, GiB


def reset_peak() -> None:
    """Reset the recorded peak of programs."""
    global _peak
    _peak = None


def peak_gib() -> float | None:
    """The peak host memory of this step's programs, in GiB; None if none was monitored."""
    return _peak


class Watch:
    """The memory of the program started as process `pid`: call `look` while waiting for it.

    Host memory is that of its whole process tree. On a CUDA device the limit applies to the card: the increase in total
    GPU memory since the monitoring started, over all processes. Without a limit the peak is only recorded.
    """

    def __init__(self, name: str, pid: int, run: Run) -> None:
        self.name, self.run = name, run
        self._process = _process(pid)
        self._next = 0.0
        self._card_start = _card_used(run.device) if run.device.startswith("cuda") else 0.0

    def look(self) -> None:
        """Raise `MemoryBudgetError` if the program exceeds the limit: the caller then ends it."""
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
        """Raise `MemoryBudgetError` if a program failed from lack of memory under a limit, which it inherits."""
        limit = self.run.memory_limit
        if limit is not None and tells_exhausted(problem, starved=self.run.device == "cpu"):
            peak = "" if _peak is None else f", {_peak:.2f} GiB measured at most"
            raise MemoryBudgetError(
                f"{self.name}: out of memory under the cap of {cap_gib(self.run.device, limit):.4g} GiB "
                f"(--memory-limit {limit:g}{peak}): {problem}; {ADVICE}"
            )

    def _host(self, cap: float | None) -> float:
        """Current host memory of the process tree, in GiB."""
        global _peak
        members: list[psutil.Process] = []
        with suppress(psutil.Error):
            assert self._process is not None
            members = [self._process, *self._process.children(recursive=True)]
        taken = sum(map(_resident, members)) / GIB
        if cap is not None and taken > cap:  # shared pages were counted for each process: measure exactly
            taken = sum(map(_share, members)) / GIB
        _peak = max(_peak or 0.0, taken)
        return taken


def _process(pid: int) -> psutil.Process | None:
    with suppress(psutil.Error):
        return psutil.Process(pid)
    return None  # the process has already ended


def _resident(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        resident: int = process.memory_info().rss
        return resident
    return 0


def _share(process: psutil.Process) -> int:
    """Resident memory with shared pages divided among their processes, if the kernel reports it (Linux)."""
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return _resident(process)


def _card_used(device: str) -> float:
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return (total - free) / GIB
