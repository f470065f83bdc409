"""Freed memory is used again and not returned to the system, where the C library is glibc and the user has not set it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from medlord_bench.memory.allocator import BY_THE_USER

LAYERS = """
import resource
import sys
import numpy as np
from medlord_bench.memory.allocator import keep_freed_memory
print(keep_freed_memory() if sys.argv[1] == "keep" else None)
def layer():
    blocks = [np.full(2**20, 1.0) for _ in range(8)]  # 8 MiB each
layer()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    layer()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(how: str, **environment: str) -> tuple[str, int]:
    """What `keep_freed_memory` says, and the pages that ten rounds take from the system."""
    clean = {name: value for name, value in os.environ.items() if name not in BY_THE_USER}
    done = subprocess.run(
        [sys.executable, "-c", LAYERS, how], capture_output=True, text=True, env={**clean, **environment}, check=True
    )
    said, pages = done.stdout.split()
    return said, int(pages)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_used_again() -> None:
    _, plain = run("plain")
    said, kept = run("keep")
    assert said == "True" and kept < plain / 10


def test_what_the_user_has_set_is_left_alone() -> None:
    assert run("keep", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"
