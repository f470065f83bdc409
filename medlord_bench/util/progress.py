"""Progress on stderr: bars with remaining time on a terminal, plain lines at intervals elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO


class ProgressTask(Protocol):
    """One bar: call `advance` with figures to show (losses, a count)."""

    def advance(self, steps: int = 1, **shown: float | str) -> None: ...


class Progress(Protocol):
    """Opens progress bars on a terminal, plain lines elsewhere."""

    def task(self, title: str, total: int, done: int = 0) -> AbstractContextManager[ProgressTask]: ...


class _SilentTask:
    def advance(self, steps: int = 1, **shown: float | str) -> None:
        pass


class SilentProgress:
    """Shows nothing: for tests and for callers that draw their own."""

    @contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[ProgressTask]:
        yield _SilentTask()


def _figures(shown: dict[str, float | str]) -> str:
    return "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class _PlainTask:
    def __init__(self, title: str, total: int, done: int, out: TextIO, every: float) -> None:
        self.title, self.total, self.done, self.first = title, total, done, done
        self.out, self.every = out, every
        self.start = self.said = time.monotonic()

    def advance(self, steps: int = 1, **shown: float | str) -> None:
        self.done += steps
        now = time.monotonic()
        if now - self.said < self.every and self.done < self.total:
            return
        self.said = now
        rate = (now - self.start) / max(self.done - self.first, 1)
        left = f"{_clock(rate * (self.total - self.done))} left" if self.done < self.total else _clock(now - self.start)
        print(f"{self.title}: {self.done}/{self.total}  {left}  {_figures(shown)}".rstrip(), file=self.out, flush=True)


class PlainProgress:
    """A line every `every` seconds and one at the end of each task: readable in a Slurm log."""

    def __init__(self, out: TextIO | None = None, every: float = 10.0) -> None:
        self.out, self.every = out or sys.stderr, every

    @contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[ProgressTask]:
        yield _PlainTask(title, total, done, self.out, self.every)


class RichProgress:
    """A bar with remaining time and the latest figures."""

    @contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[ProgressTask]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
        )
        with Bars(*columns, console=Console(stderr=True)) as bars:
            handle = bars.add_task(title, total=total, completed=done, shown="")

            class Task:
                def advance(self, steps: int = 1, **shown: float | str) -> None:
                    if shown:
                        bars.update(handle, advance=steps, shown=_figures(shown))
                    else:
                        bars.update(handle, advance=steps)

            yield Task()


def make_progress() -> Progress:
    """Bars where stderr is a terminal, plain lines otherwise."""
    return RichProgress() if sys.stderr.isatty() else PlainProgress()
