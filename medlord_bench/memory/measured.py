"""Measured memory peaks of a piece of work: on a GPU what the allocator reserved, on a CPU the resident set."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from medlord_bench.memory.budget import GIB


class PeakMemory:
    """Context manager; `gib` holds the peak afterwards, None where the system cannot tell.

    On a CPU it is the high-water mark of the whole process (VmHWM), reset at the start where the kernel allows.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.gib: float | None = None

    def __enter__(self) -> PeakMemory:
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            _reset_high_water_mark()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device.startswith("cuda"):
            import torch

            self.gib = torch.cuda.max_memory_reserved(self.device) / GIB
        else:
            self.gib = _high_water_mark()


def _reset_high_water_mark() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux, or not allowed: the mark is then that of the process so far
        return


def _high_water_mark() -> float | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    kib = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    return None if kib is None else kib * 1024 / GIB
