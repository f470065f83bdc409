"""Random damage to inputs: each execution ends in values, or in one line of the bench's own.

Without a budget the examples are the same in each run and take about half a minute in total. With MEDLORD_BENCH_FUZZ_SECONDS
(`make fuzz`) they are new ones, for that many seconds in all, and each failure is printed with the command that repeats it.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

SECONDS = os.environ.get("MEDLORD_BENCH_FUZZ_SECONDS")
LONGEST = 60  # seconds of one execution: beyond it hangs
MOST_MEMORY = 2**20  # KiB that a target may add to the process's peak
executions: dict[str, int] = {}
_collected: list[int] = []


class Hang(BaseException):
    """An execution took too long. No `Exception`, so that the code under test cannot take it for an error of its own."""


@contextmanager
def bounded() -> Iterator[None]:
    def late(number: int, frame: object) -> None:
        raise Hang(f"took more than {LONGEST} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Fuzz:
    """``fuzz(check, strategy, examples)`` calls `check` with examples of the strategy."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __call__(self, check: Callable[[Any], None], strategy: SearchStrategy[Any], examples: int = 80) -> None:
        def once(example: Any) -> None:
            executions[self.target] = executions.get(self.target, 0) + 1
            with bounded():
                check(example)

        options: dict[str, Any] = {
            "deadline": None,
            "database": None,
            "suppress_health_check": list(HealthCheck),
            "phases": (Phase.generate, Phase.shrink),
        }
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if SECONDS is None:
            settings(max_examples=examples, derandomize=True, **options)(given(strategy)(once))()
        else:
            end = time.monotonic() + float(SECONDS) / max(sum(_collected), 1)
            while time.monotonic() < end:
                drawn = random.SystemRandom().randrange(2**32)
                seed(drawn)(settings(max_examples=100, print_blob=True, **options)(given(strategy)(once)))()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY, (
            "it allocates what a header says"
        )


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> Fuzz:
    return Fuzz(request.node.name.removeprefix("test_"))


def pytest_collection_finish(session: pytest.Session) -> None:
    _collected[:] = [sum("fuzz" in getattr(item, "fixturenames", ()) for item in session.items)]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if executions and SECONDS is not None:
        for target, count in executions.items():
            terminalreporter.write_line(f"{count:>9} executions  {target}")
        terminalreporter.write_line(f"{sum(executions.values()):>9} executions in all")
