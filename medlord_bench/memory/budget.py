"""The memory rule: how much of a card a program needs for its tensors, and how much a card of a given size provides.

Every prediction, cap and verdict of the bench uses the functions of this file.
"""

from __future__ import annotations

import re

from medlord_bench.errors import UserError

GIB = 2**30
CONTEXT_GIB = 0.5  # the CUDA context and the libraries' handles, outside the caching allocator
PROCESS_GIB = 1.5  # on a CPU instead: loaded libraries (1.1 measured), threads, prefetched batches
ALLOCATED_FACTOR = 1.05  # memory that the allocator reserves beyond its tensors: rounding and fragmentation
USABLE_FRACTION = 22.5 / 24  # a "24 GB" card provides 22 to 23.7 GiB to programs, after ECC and driver
DEFAULT_GIB = 24.0  # the card that the bench's presets are made for

_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(GiB|GB|G|MiB|MB|M)?", re.IGNORECASE)


def context_gib(device: str) -> float:
    """The memory of a process besides its tensors, in GiB."""
    return CONTEXT_GIB if device.startswith("cuda") else PROCESS_GIB


def total_gib(allocated_gib: float, workspace_gib: float, context_gib: float = CONTEXT_GIB) -> float:
    """The memory, in GiB, that a card must provide for a peak of allocated tensors and the operator's workspace at the
    peak."""
    return ALLOCATED_FACTOR * allocated_gib + workspace_gib + context_gib


def usable_gib(budget_gib: float) -> float:
    """The memory that programs may use on a card sold as `budget_gib`, in GiB."""
    return budget_gib * USABLE_FRACTION


def parse_gib(text: str, option: str = "--memory-limit") -> float | None:
    """A size written by the user, in GiB; None for "none". Cards are sold in "GB" but have GiB: both are read as GiB.

    Raises `UserError` naming `option` for anything but a positive size or "none".
    """
    if text.strip().lower() == "none":
        return None
    match = _SIZE.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0:
        raise UserError(
            f"{option} {text}: expected a size such as 24, 24GB, 3.5GiB or 512MiB (GB reads as GiB), or none"
        )
    return float(match[1]) / (1024 if (match[2] or "").upper().startswith("M") else 1)
