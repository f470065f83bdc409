"""A persistent worker process: it serves its shards of the steps of a whole run, one after the other.

The protocol is JSON lines. A task arrives at one pipe, ``{"shard": 0, "arguments": ["worker", ...], "log": "FILE",
"threads": 2}``, and is the command ``medlord-bench ARGUMENTS`` with its output appended to the log. The answer in the
other, ``{"shard": 0, "code": 0}``, has the exit code. The process ends at the end of its tasks; SIGTERM stops a step.

A run forks such a process from itself (`engine.executors.processes.fork`), or starts this module, with the tasks on
standard input and the answers on standard output.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from typing import Any

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


def load_libraries() -> None:
    """Import what most steps need; a process does so before it forks workers."""
    for name in LIBRARIES:
        import_module(name)


def stay(tasks: int, answers: int) -> None:
    """Serve each task in this process. tasks, answers: file descriptors."""
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
    stay(*_pipes())
