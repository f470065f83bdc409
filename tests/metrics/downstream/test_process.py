"""What the progress of a training shows while its process runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medlord_bench.contracts import Run
from medlord_bench.metrics.downstream import process


def test_each_epoch_is_shown_once_with_the_mean_dice_of_known_regions(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One epoch was done before; the process writes one more each time that it is looked at."""
    monkeypatch.setattr(process, "POLL_SECONDS", 0.0)
    path = tmp_path / "progress.jsonl"
    dice = [[0.5], [0.2, 0.4], [float("nan"), 0.6], [float("nan")], [0.8, 0.9, 1.0]]
    lines = [json.dumps({"epoch": i, "loss": -i, "dice": own}) + "\n" for i, own in enumerate(dice)]
    path.write_text(lines[0])
    told: list[Any] = []

    class Process:
        returncode, looks = 0, 0

        def poll(self) -> int | None:
            self.looks += 1
            path.write_text("".join(lines[: self.looks + 1]))
            return 0 if self.looks > 4 else None

    class Shown:
        @contextmanager
        def task(self, title: str, total: int, done: int = 0) -> Iterator[Any]:
            told.append((title, total, done))
            yield self

        def advance(self, steps: int = 1, **shown: float) -> None:
            told.append((steps, shown["loss"], round(shown["dice"], 6)))

    work = SimpleNamespace(title="train", epochs=5, progress=path)
    process._wait(Process(), work, replace(run, progress=Shown()), SimpleNamespace(look=lambda: None))  # type: ignore[arg-type]
    assert told == [("train", 5, 1), (1, -1, 0.3), (1, -2, 0.6), (1, -3, 0.0), (1, -4, 0.9)]
