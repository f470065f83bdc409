"""The further processes of a training on several GPUs: the step's worker starts them, and they end with it.

Not torchrun: a worker's exit code says whether it stopped with everything saved, which torchrun replaces by its own, and one
process for each step is what a job of a cluster and `--memory-limit` know.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from medlord_bench.contracts import World
from medlord_bench.errors import ExitCode, StepError, UserError
from medlord_bench.util.interpreter import module_command, safe_environment

NOTICE_SECONDS = 10.0
GRACE_SECONDS = 120.0  # for the others to end after the first


def world_of(run_folder: Path, step_id: str, size: int, device: str) -> World | None:
    """The processes of a training, seen from the first; None for one. device: of the first.

    Raises `UserError` if there are fewer GPUs.
    """
    if size == 1:
        return None
    device_of(device, size - 1)
    return World(size=size, start=partial(others, run_folder, step_id, size))


def device_of(first: str, rank: int) -> str:
    """The device of a rank: the GPUs from that of the first on; on a CPU all share it."""
    if first == "cpu" or rank == 0:
        return first
    import torch

    number = int(first.partition(":")[2] or 0) + rank
    if number >= torch.cuda.device_count():
        raise UserError(
            f"--gpus: torch sees {torch.cuda.device_count()} CUDA devices, needs cuda:{number}; give a smaller --gpus"
        )
    return f"cuda:{number}"


def _watch(processes: Sequence[subprocess.Popen[bytes]], over: threading.Event, message: str) -> None:
    """End this process when another one has failed and the exchange does not notice it: it may wait for hours. What was
    published and the last checkpoint are kept."""
    while not over.wait(1.0):
        bad = [code for process in processes if (code := process.poll()) not in (None, 0, ExitCode.REQUEUE)]
        if bad:
            if not over.wait(NOTICE_SECONDS):
                print(f"Error: {message.format(bad[0])}", file=sys.stderr, flush=True)
                os._exit(ExitCode.FAILED)
            return


@contextmanager
def others(run_folder: Path, step_id: str, size: int, port: int) -> Iterator[None]:
    """Start all ranks but the first, and wait for their end. port: where they meet."""
    log = run_folder / "logs" / f"{step_id.replace(':', '_').replace('/', '_')}.ranks.log"
    log.parent.mkdir(exist_ok=True)
    environment = dict(safe_environment())
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // size)))
    processes = []
    with log.open("ab") as output:
        for rank in range(1, size):
            words = ["worker", str(run_folder), step_id, "--rank", f"{rank}/{size}", "--meet", str(port)]
            processes.append(
                subprocess.Popen(
                    [*module_command("medlord_bench"), *words],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True,
                )
            )  # fmt: skip
    over = threading.Event()
    watch = partial(_watch, processes, over, f"step {step_id}: a process of {size} ended with {{}}; see {log}")
    threading.Thread(target=watch, daemon=True, name="ranks").start()
    try:
        yield
        codes = [process.wait(GRACE_SECONDS) for process in processes]
        bad = [code for code in codes if code not in (0, ExitCode.REQUEUE)]
        if bad:
            raise StepError(f"step {step_id}: a process of {size} ended with {bad[0]}; see {log}")
    except RuntimeError as error:  # of an exchange with a process that is gone
        ended = [code for process in processes if (code := process.poll()) not in (None, 0, ExitCode.REQUEUE)]
        if ended:
            raise StepError(f"step {step_id}: a process of {size} ended with {ended[0]}; see {log}") from error
        raise
    finally:
        over.set()
        for process in processes:
            process.kill()  # nothing to save: the first rank does
            process.wait()
