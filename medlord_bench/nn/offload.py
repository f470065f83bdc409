"""Networks that take turns on the card."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def on_device(networks: Iterable[nn.Module], device: str) -> Iterator[None]:
    """Inside, `networks` lie on `device`; afterwards in the computer's memory. On a CPU nothing moves."""
    taken = list(networks)
    for network in taken:
        network.to(device)
    try:
        yield
    finally:
        for network in taken:
            network.to("cpu")
