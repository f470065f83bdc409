"""Measured memory peaks of a piece of work, with the prediction and the kind of evidence."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from medlord_bench.memory import children
from medlord_bench.memory.budget import GIB
from medlord_bench.util import provenance

FORECAST = "forecast.json"  # in a run folder: predictions before work started, by step
CARD_24_GIB = 25.0  # a card of at most this size is, or is smaller than, one that is sold as 24 GB
SAMPLE_SECONDS = 0.1


def forecast_of(run_folder: Path, step_id: str) -> Mapping[str, Any]:
    """The entry of a step in `forecast.json`, empty if nothing was predicted."""
    try:
        known = json.loads((run_folder / FORECAST).read_text())
    except FileNotFoundError:
        return {}
    found: Mapping[str, Any] = known["steps"].get(step_id) or {}
    return found


class PeakMemory:
    """Context manager that measures a step; `facts()` may be called at any time inside, and afterwards.

    On a CPU the peak is the high-water mark of the whole process (VmHWM), reset at the start where the kernel allows.
    On a GPU it is torch's allocated and reserved peak, and the sampled increase in the card's memory use since the
    start.
    limited: whether a limit is enforced. predicted: GiB by the memory rule, `predicted_allocated` of them in tensors.
    """

    def __init__(self, device: str, limited: bool = False, forecast: Mapping[str, Any] | None = None) -> None:
        self.device, self.limited, self.forecast = device, limited, forecast or {}
        self.on_card = device.startswith("cuda")
        self._sampler: _CardSampler | None = None
        self._last: dict[str, Any] = {}

    def __enter__(self) -> PeakMemory:
        children.reset_peak()
        if self.on_card:
            import torch

            torch.cuda.reset_peak_memory_stats(self.device)
            self._sampler = _CardSampler(self.device)
            self._sampler.start()
        else:
            _reset_high_water_mark()
        self._card, self._evidence = _card(self.device, self.limited)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sampler is not None:
            self._sampler.end()
        self._last = self._peaks()

    @property
    def gib(self) -> float | None:
        """The reported peak: on a GPU the allocator's reserved memory, on a CPU the resident set; None if unknown."""
        peak: float | None = (self._last or self._peaks()).get("reserved" if self.on_card else "resident")
        return peak

    def facts(self) -> dict[str, Any]:
        """The facts of a sidecar: GiB so far in this step, of this process and the programs it started."""
        predicted = {
            "predicted": self.forecast.get("total_gib"),
            "predicted_allocated": self.forecast.get("allocated_gib"),
        }
        return {**predicted, **(self._last or self._peaks()), "card": self._card, "evidence": self._evidence}

    def _peaks(self) -> dict[str, Any]:
        programs = children.peak_gib()
        found: dict[str, Any] = {} if programs is None else {"programs": _rounded(programs)}
        if self._sampler is None:
            return {"resident": _rounded(_high_water_mark()), **found}
        import torch

        return {
            "allocated": _rounded(torch.cuda.max_memory_allocated(self.device) / GIB),
            "reserved": _rounded(torch.cuda.max_memory_reserved(self.device) / GIB),
            "device": _rounded(self._sampler.peak_gib),
            **found,
        }


def _rounded(gib: float | None) -> float | None:
    return None if gib is None else round(gib, 3)


def _card(device: str, limited: bool) -> tuple[str, str]:
    """(name of the card or CPU, what kind of evidence a peak measured on it is)."""
    if not device.startswith("cuda"):
        return provenance.cpu_model() or "CPU", "measured-on-cpu"
    import torch

    name = torch.cuda.get_device_name(device)
    if torch.cuda.mem_get_info(device)[1] <= CARD_24_GIB * GIB:
        return name, "measured-on-24GB"
    return name, f"{'capped' if limited else 'measured'}-on-{name.replace(' ', '-')}"


class _CardSampler(threading.Thread):
    """Samples the increase in the card's memory use, over all processes, since the start.

    Memory that this process's allocator had reserved at the start counts for this step; the CUDA context does not.
    """

    def __init__(self, device: str) -> None:
        super().__init__(daemon=True, name="card memory")
        import torch

        self.device, self.peak_gib = device, 0.0
        self._ended = threading.Event()
        self._start_bytes = _used(device) - torch.cuda.memory_reserved(device)

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self._look()

    def end(self) -> None:
        self._ended.set()
        self.join()
        self._look()

    def _look(self) -> None:
        self.peak_gib = max(self.peak_gib, (_used(self.device) - self._start_bytes) / GIB)


def _used(device: str) -> int:
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return total - free


def _reset_high_water_mark() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux, or not permitted: the mark then covers the whole process so far
        return


def _high_water_mark() -> float | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    kib = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    return None if kib is None else kib * 1024 / GIB
