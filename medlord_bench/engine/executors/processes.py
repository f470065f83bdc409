"""The run's side of worker processes that last: started once, asked for one task after the other (see `cli.serve`)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

READ_BYTES = 2**16
STOP = {"stop": True}


class WorkerProcess:
    """A process that serves one task at a time. log: where it writes what belongs to no task."""

    def __init__(self, command: list[str], log: Path, environment: Mapping[str, str]) -> None:
        with log.open("ab") as errors:
            # Its own session: Ctrl-C on the terminal reaches the run, which passes it on once.
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                bufsize=0,
            )
        self.tasks: set[int] = set()  # shards in hand

    def start(self, task: dict[str, Any]) -> None:
        self.tasks.add(task["shard"])
        self._write(task)

    def stop(self) -> None:
        """Ask for a clean end of what is in hand."""
        if self.tasks:
            self.process.send_signal(signal.SIGTERM)

    def fileno(self) -> int:
        """What becomes readable when `ended` has something to tell."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def ended(self) -> dict[int, int]:
        """Shard -> exit code of tasks that ended; waits for the first. A process that is gone ends all it had."""
        lines = os.read(self.fileno(), READ_BYTES).splitlines()
        if lines:
            codes = {answer["shard"]: int(answer["code"]) for answer in map(json.loads, lines)}
        else:
            codes = dict.fromkeys(self.tasks, self.process.wait())
        self.tasks -= codes.keys()
        return codes

    def close(self) -> None:
        """End the process. What it has in hand saves and ends first, as far as it is still at work."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.stop()
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def _write(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # its end is found by `ended`
            self.process.stdin.write(json.dumps(message).encode() + b"\n")


class ForkServer(WorkerProcess):
    """A process that serves many tasks at a time, each in a child that has its imports. On Linux, without CUDA."""

    def stop(self) -> None:
        self._write(STOP)


def command(mode: str) -> list[str]:
    """The command of a worker process; mode: "fork" or "stay"."""
    return [sys.executable, "-m", "medlord_bench.cli.serve", mode]
