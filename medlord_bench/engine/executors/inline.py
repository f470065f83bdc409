"""The executor that works in this process, one step after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medlord_bench.engine.worker import Settings, execute


class InlineExecutor:
    """Works in this process, one step after the other."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def map(self, run_folder: Path, step_id: str, shards: int, stop: Callable[[], bool]) -> None:
        for shard in range(shards):
            execute(run_folder, step_id, self.settings, stop, shard, shards)

    def close(self) -> None:
        pass
