"""Stopping cleanly: SIGTERM, SIGUSR1 or SIGUSR2 (a scheduler's warning), Ctrl-C and `--max-time` set one flag that long work checks."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class Stopper:
    """`stop()` becomes true after a request to stop. A second Ctrl-C ends immediately."""

    def __init__(self, max_time: float | None = None) -> None:
        self.deadline = None if max_time is None else time.monotonic() + max_time
        self.signal: int | None = None
        self.before: dict[int, Any] = {}

    def install(self) -> None:
        """Catch the signals in this process (main thread only), also those that were blocked until now."""
        self.before = {number: signal.signal(number, self._caught) for number in SIGNALS}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def restore(self) -> None:
        """Give the signals back to their handlers before `install`."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before.clear()

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            os._exit(130)  # second request: published items are kept, the current item is lost
        self.signal = number

    def stop(self) -> bool:
        return self.signal is not None or (self.deadline is not None and time.monotonic() > self.deadline)

    @property
    def interrupted(self) -> bool:
        """Whether stopped by Ctrl-C, not by a scheduler or a time limit."""
        return self.signal == signal.SIGINT
