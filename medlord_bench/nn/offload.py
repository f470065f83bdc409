"""Networks that are on the GPU one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def on_device(networks: Iterable[nn.Module], device: str) -> Iterator[None]:
    """Keep `networks` on `device` inside the context, then move them to host memory. On a CPU nothing is moved."""
    taken = list(networks)
    for network in taken:
        network.to(device)
    try:
        yield
    finally:
        for network in taken:
            network.to("cpu")
