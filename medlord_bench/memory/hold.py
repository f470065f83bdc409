"""Enforce the memory limit of a step while it works, and report when it exceeded it.

On a CUDA device the limit caps the memory that torch's caching allocator may reserve, and attention must not fall back
silently to the kernel that stores all N x N scores. On a CPU the limit is the kernel's own, RLIMIT_DATA: memory that a
process allocates, touched or not, without the libraries mapped into it. The limit applies separately to each process
and each program it starts; the total of programs is monitored (`children`).
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from medlord_bench.errors import MemoryBudgetError, Stopped
from medlord_bench.memory.budget import CONTEXT_GIB, DEFAULT_GIB, GIB, USABLE_FRACTION, usable_gib

log = logging.getLogger("medlord_bench")

FOREIGN_GIB = 0.5  # less than this in use on a card is attributed to driver and desktop, and is accepted

WHY_LENGTH = 160
# Messages of libraries and programs that run out of memory.
_EXHAUSTED = re.compile(
    r"out of memory"  # CUDA, cuDNN, libgomp
    r"|DefaultCPUAllocator"
    r"|not enough memory"
    r"|[Cc]annot allocate memory"  # errno ENOMEM
    r"|[Uu]nable to allocate"  # NumPy
    r"|bad_alloc|bad allocation"  # C++
    r"|MemoryError"
    r"|STATUS_ALLOC_FAILED"  # cuBLAS, cuDNN
    r"|[Nn]o available kernel"  # attention, if only the kernel of N x N scores is left
)
# Messages with several causes, of which a process under RLIMIT_DATA has this one: oneDNN, threads (also OpenMP's),
# libraries.
_STARVED = re.compile(
    r"could not create a (memory|primitive)|can't start new thread|[Tt]hread creation failed|failed to map"
)
# Loaded before a process is limited: an import that lacks memory ends in misleading errors.
_LIBRARIES = ("torch", "monai.networks.nets", "scipy.stats", "nibabel", "SimpleITK")


def limit_on(device: str, setting: float | Literal["auto"] | None) -> float | None:
    """The limit in GiB of `--memory-limit` on `device`; None for no limit.

    "auto" is 24 GiB on a CUDA device and no limit on a CPU. A limit above the card's memory is lowered to the card;
    a limit given by the user is lowered with a warning.
    """
    if setting is None or (setting == "auto" and not device.startswith("cuda")):
        return None
    limit = DEFAULT_GIB if setting == "auto" else setting
    if not device.startswith("cuda"):
        return limit
    import torch

    card = torch.cuda.mem_get_info(device)[1] / GIB
    if usable_gib(limit) <= card:
        return limit
    if setting != "auto":
        name = torch.cuda.get_device_name(device)
        log.warning("--memory-limit %g GiB: %s has %.1f GiB; limit lowered to that", limit, name, card)
    return card / USABLE_FRACTION


def cap_gib(device: str, limit_gib: float) -> float:
    """The memory that a program may take under a limit, in GiB: all of it on a CPU, the usable part of such a card on
    CUDA."""
    return usable_gib(limit_gib) if device.startswith("cuda") else limit_gib


def held(device: str, limit_gib: float | None, step_id: str) -> AbstractContextManager[None]:
    """Limit this process to `limit_gib` on `device` inside the `with`; earlier settings are restored afterwards.

    Raises `MemoryBudgetError` at the start if the limit cannot be kept: other processes use the card, or this
    process already exceeds it.
    """
    if limit_gib is None:
        return nullcontext()
    return _card_held(device, limit_gib, step_id) if device.startswith("cuda") else _process_held(limit_gib, step_id)


def is_exhausted(error: BaseException, starved: bool) -> bool:
    """Whether an error, or one of its causes, is due to lack of memory. starved: in a process under RLIMIT_DATA.

    This includes a loader that reports a file as damaged because it lacks the memory to read it, and in a
    starved process a library that cannot be imported, or that ends the program.
    """
    if starved and isinstance(error, ImportError | SystemExit):
        return True
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, Stopped):
        if isinstance(seen, MemoryError) or tells_exhausted(f"{type(seen).__name__}: {seen}", starved):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def tells_exhausted(text: str, starved: bool) -> bool:
    """Whether an error's text reports lack of memory."""
    return _EXHAUSTED.search(text) is not None or (starved and _STARVED.search(text) is not None)


def over_budget(
    step_id: str,
    less_memory: str,
    device: str,
    limit_gib: float,
    why: str,
    forecast: Mapping[str, Any] | None = None,
    peak_gib: float | None = None,
) -> MemoryBudgetError:
    """The one line for a step that exceeded the limit: its name, the cap, the peak, and the setting to change.

    less_memory: advice if the forecast has none. why: the error of the first allocation that failed.
    forecast: the entry of the step in `forecast.json`.
    """
    known = forecast or {}
    stage = f" ({known['stage']})" if known.get("stage") else ""
    peak = "" if peak_gib is None else f", peak so far {peak_gib:.2f} GiB"
    advice = known.get("advice") or f"use {less_memory}"
    first = (why.strip().splitlines() or ["no message"])[0][:WHY_LENGTH]
    return MemoryBudgetError(
        f"step {step_id}{stage}: out of memory on {device}, cap {cap_gib(device, limit_gib):.4g} GiB{peak} ({first}); "
        f"{advice}, or a larger --memory-limit than {limit_gib:.4g}; published items are kept"
    )


# ------------------------------------------------------------------------------------------------------------ the card
@contextmanager
def _card_held(device: str, limit_gib: float, step_id: str) -> Iterator[None]:
    import torch

    free, total = (size / GIB for size in torch.cuda.mem_get_info(device))
    available = min(free + torch.cuda.memory_reserved(device) / GIB + CONTEXT_GIB, total)
    foreign = total - available
    usable = usable_gib(limit_gib)
    if foreign > FOREIGN_GIB and available < usable:
        raise MemoryBudgetError(
            f"step {step_id}: {torch.cuda.get_device_name(device)} ({device}): {foreign:.1f} of {total:.1f} GiB are in "
            f"use by other processes; --memory-limit {limit_gib:g} requires {usable:.1f} GiB: "
            f"free the card, or use another --device or lower --memory-limit (up to {available / USABLE_FRACTION:.1f})"
        )
    math: bool = torch.backends.cuda.math_sdp_enabled()  # type: ignore[no-untyped-call]
    try:
        torch.cuda.set_per_process_memory_fraction((min(usable, available) - CONTEXT_GIB) / total, device)
        torch.backends.cuda.enable_math_sdp(False)
        yield
    finally:
        torch.backends.cuda.enable_math_sdp(math)
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        torch.cuda.empty_cache()  # programs of a later step need the card too


# --------------------------------------------------------------------------------------------------------- the process
@contextmanager
def _process_held(limit_gib: float, step_id: str) -> Iterator[None]:
    if sys.platform != "linux":
        log.warning(
            "--memory-limit %g GiB: not enforced in this process, since %s has no such limit", limit_gib, sys.platform
        )
        yield
        return
    import resource

    for name in _LIBRARIES:
        import_module(name)
    used = _data_gib()
    if used > limit_gib:
        raise MemoryBudgetError(
            f"step {step_id}: this process has {used:.2f} GiB before the step begins, including its libraries, "
            f"more than --memory-limit {limit_gib:g}; give a larger limit"
        )
    before = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = [int(limit_gib * GIB), *(size for size in before if size != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(wanted), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _data_gib() -> float:
    """The memory of this process that RLIMIT_DATA counts."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmData:")) * 1024 / GIB
