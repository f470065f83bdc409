"""``medlord-bench worker``: one step of a run, or a shard of it. Executors call it; users need not."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from medlord_bench.errors import UserError
from medlord_bench.util.stopping import Stopper

WATCH_SECONDS = 1.0


@click.command(hidden=True)
@click.argument("run_folder", type=click.Path(path_type=Path))
@click.argument("step")
@click.option("--shard", default="0/1", help="i/n: the i-th of n shards.")
def worker(run_folder: Path, step: str, shard: str) -> None:
    """Execute STEP of RUN_FOLDER."""
    from medlord_bench.engine.run_folder import settings_of
    from medlord_bench.engine.worker import execute
    from medlord_bench.util.progress import PlainProgress

    stopper = Stopper()
    stopper.install()
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UserError(f"--shard {shard}: expected i/n with i from 0 below n, such as 0/2")
    with _ending_with_parent(stopper):
        execute(run_folder, step, settings_of(run_folder), stopper.stop, int(index), int(count), PlainProgress())


@contextmanager
def _ending_with_parent(stopper: Stopper) -> Iterator[None]:
    """Stop cleanly when the parent process is gone (killed), so that the worker does not continue unnoticed."""
    parent, done = os.getppid(), threading.Event()

    def watch() -> None:
        while not done.wait(WATCH_SECONDS):
            if os.getppid() != parent:
                stopper.signal = signal.SIGTERM
                return

    threading.Thread(target=watch, daemon=True, name="parent").start()
    try:
        yield
    finally:
        done.set()
