"""A persistent worker process: it imports the libraries once and serves the steps of a whole run.

The protocol is JSON lines. A task arrives on standard input,
``{"shard": 0, "arguments": ["worker", ...], "log": "FILE", "threads": 2}``, and is the command
``medlord-bench ARGUMENTS`` with its output appended to the log. The answer on standard output,
``{"shard": 0, "code": 0}``, has the exit code, or the negative number of the signal that ended it. The process ends at
the end of standard input.

``fork`` serves each task in a child process, several at once; ``{"stop": true}`` and the end of standard input pass
SIGTERM on to all of them. It holds neither a CUDA context nor OpenMP threads, since a child could use neither. ``stay``
serves each task in this process, one after the other; SIGTERM stops it.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from typing import Any

from medlord_bench.engine.executors.processes import READ_BYTES, STOP
from medlord_bench.util.stopping import SIGNALS

# Libraries that most steps need and that import slowly. Importing them starts no OpenMP thread, computing does.
LIBRARIES = (
    *("torch", "torch.utils.tensorboard", "monai.networks.nets", "scipy.stats", "nibabel", "SimpleITK", "torchvision"),
    *("threadpoolctl", "medlord_bench.cli.worker", "medlord_bench.engine.run_folder", "medlord_bench.memory.measured"),
    *(
        "medlord_bench.engine.steps.kinds",
        "medlord_bench.nn.training",
        "medlord_bench.nn.vqgan.training",
        "medlord_bench.nn.tiling",
    ),
)


class Forking:
    """Serves each task in a child that has this process's imports."""

    def __init__(self) -> None:
        # Blocked, not ignored: a signal that reaches a child before it sets its own handlers must not be lost.
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self.tasks, self.answers = _pipes()
        self.children: dict[int, int] = {}  # process id -> shard
        self.wakes, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for name in LIBRARIES:
            import_module(name)
        gc.freeze()  # without it a collection in a child writes to, and so copies, the pages of all imported modules

    def serve(self) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(self.wakes, selectors.EVENT_READ)
            ready.register(self.tasks, selectors.EVENT_READ)
            asked = True
            while asked or self.children:
                sources = {key.fd for key, _ in ready.select()}
                if self.tasks in sources and not self._read():
                    asked = False
                    ready.unregister(self.tasks)
                if self.wakes in sources:
                    os.read(self.wakes, READ_BYTES)
                    self._reap()

    def _read(self) -> bool:
        """Start the tasks that have arrived; False at their end."""
        lines = os.read(self.tasks, READ_BYTES).splitlines()
        for message in map(json.loads, lines) if lines else [STOP]:
            if message == STOP:
                for pid in self.children:
                    os.kill(pid, signal.SIGTERM)
            else:
                self.children[self._fork(message)] = message["shard"]
        return bool(lines)

    def _fork(self, task: dict[str, Any]) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            os.close(self.tasks)
            os.close(self.answers)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # The worker unblocks them once its own handlers are installed: a stop before that waits and is not lost.
            signal.pthread_sigmask(signal.SIG_SETMASK, {*self.mask, *SIGNALS})
            code = _execute(task)
        finally:
            os._exit(code)

    def _reap(self) -> None:
        for pid in list(self.children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                _answer(self.answers, self.children.pop(pid), os.waitstatus_to_exitcode(status))


def stay() -> None:
    """Serve each task in this process."""
    tasks, answers = _pipes()
    with os.fdopen(tasks) as lines:
        for line in lines:
            task = json.loads(line)
            code = _execute(task)
            for number in SIGNALS:  # between tasks a signal ends the process; the last task's handler would lose it
                signal.signal(number, signal.SIG_DFL)
            _release_device()
            _answer(answers, task["shard"], code)


def _pipes() -> tuple[int, int]:
    """File descriptors of tasks and answers, protected from libraries' output and from programs that steps start."""
    tasks, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return tasks, answers


def _answer(answers: int, shard: int, code: int) -> None:
    with suppress(BrokenPipeError):  # the run has ended, and the end of the tasks follows
        os.write(answers, json.dumps({"shard": shard, "code": code}).encode() + b"\n")


def _execute(task: dict[str, Any]) -> int:
    """Execute ``medlord-bench ARGUMENTS``; returns its exit code."""
    from medlord_bench.cli import main

    log = os.open(task["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in (1, 2):
        os.dup2(log, number)
    os.close(log)
    sys.argv = ["medlord-bench", *task["arguments"]]
    try:
        if task["threads"] is not None:
            _limit_threads(task["threads"])
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _limit_threads(threads: int) -> None:
    """Set the number of threads; libraries read OMP_NUM_THREADS only once, when they are loaded."""
    import threadpoolctl
    import torch

    os.environ["OMP_NUM_THREADS"] = str(threads)  # for the programs that a step starts
    torch.set_num_threads(threads)
    threadpoolctl.threadpool_limits(threads)


def _release_device() -> None:
    """Release the memory that the allocator keeps between steps: another worker may use the same card next."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    if sys.argv[1] == "fork":
        Forking().serve()
    else:
        stay()
