"""The run's side of persistent worker processes: started once, given one task after the other (see `cli.serve`)."""

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
    """A process that serves one task at a time. log: file for output that belongs to no task."""

    def __init__(self, command: list[str], log: Path, environment: Mapping[str, str]) -> None:
        with log.open("ab") as errors:
            # Own session: Ctrl-C in the terminal reaches only the run, which forwards it once.
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                bufsize=0,
            )
        self.tasks: set[int] = set()  # shards being processed

    def start(self, task: dict[str, Any]) -> None:
        self.tasks.add(task["shard"])
        self._write(task)

    def stop(self) -> None:
        """Ask for a clean end of the running tasks."""
        if self.tasks:
            self.process.send_signal(signal.SIGTERM)

    def fileno(self) -> int:
        """The object that becomes readable when `ended` has a result."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def ended(self) -> dict[int, int]:
        """Shard -> exit code of tasks that ended; waits for the first. If the process has ended, all of its tasks
        have."""
        lines = os.read(self.fileno(), READ_BYTES).splitlines()
        if lines:
            codes = {answer["shard"]: int(answer["code"]) for answer in map(json.loads, lines)}
        else:
            codes = dict.fromkeys(self.tasks, self.process.wait())
        self.tasks -= codes.keys()
        return codes

    def close(self) -> None:
        """End the process. Running tasks save and end first."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.stop()
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def _write(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # `ended` detects its end
            self.process.stdin.write(json.dumps(message).encode() + b"\n")


class ForkServer(WorkerProcess):
    """A process that serves several tasks at once, each in a child that has its imports. On Linux, without CUDA."""

    def stop(self) -> None:
        self._write(STOP)


def command(mode: str) -> list[str]:
    """The command of a worker process; mode: "fork" or "stay"."""
    return [sys.executable, "-m", "medlord_bench.cli.serve", mode]
