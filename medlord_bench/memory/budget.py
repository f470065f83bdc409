"""The one rule: how much of a card a program needs for the tensors it allocates, and how much a card of a size gives.

Every prediction, cap and verdict of the bench is made with the functions of this file.
"""

from __future__ import annotations

import re

from medlord_bench.errors import UserError

GIB = 2**30
CONTEXT_GIB = 0.5  # the CUDA context and the libraries' handles, outside the caching allocator
PROCESS_GIB = 1.5  # on a CPU instead: libraries once loaded (1.1 seen), threads, batches made ahead
ALLOCATED_FACTOR = 1.05  # what the allocator reserves beyond the tensors in it: rounding and fragmentation
USABLE_FRACTION = 22.5 / 24  # a "24 GB" card gives programs 22 to 23.7 GiB, with ECC and what the driver keeps
DEFAULT_GIB = 24.0  # the card that the bench's presets are made for

_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(GiB|GB|G|MiB|MB|M)?", re.IGNORECASE)


def context_gib(device: str) -> float:
    """What a process takes beside its tensors, in GiB."""
    return CONTEXT_GIB if device.startswith("cuda") else PROCESS_GIB


def total_gib(allocated_gib: float, workspace_gib: float, context_gib: float = CONTEXT_GIB) -> float:
    """What a card must provide, in GiB, for a peak of allocated tensors and the workspace of the operation at it."""
    return ALLOCATED_FACTOR * allocated_gib + workspace_gib + context_gib


def usable_gib(budget_gib: float) -> float:
    """What programs may use of a card that is sold as one of `budget_gib`, in GiB."""
    return budget_gib * USABLE_FRACTION


def parse_gib(text: str, option: str = "--memory-limit") -> float | None:
    """A size as a person writes it, in GiB; None for "none". Cards are sold in "GB" and hold GiB: both read as GiB.

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
