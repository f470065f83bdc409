"""``medlord-bench worker``: one step of a run, or a shard of it. Executors call it; a person need not."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import click

from medlord_bench.util.stopping import Stopper


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
    _end_with_parent(stopper)
    index, _, count = shard.partition("/")
    execute(run_folder, step, settings_of(run_folder), stopper.stop, int(index), int(count), PlainProgress())


def _end_with_parent(stopper: Stopper) -> None:
    """Stop cleanly when the process that started this one is gone (killed), rather than work on unseen."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        stopper.signal = 15

    threading.Thread(target=watch, daemon=True, name="parent").start()
