"""The progress lines of workers, in one place on a terminal and as they are elsewhere."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from medlord_bench.engine.executors.workers_progress import NEW_LINE_IN_PLACE, WorkersProgress
from medlord_bench.util.progress import PlainProgress

EARLIER = "images: 3/3  0:01\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "step.0.log"
    path.write_text(EARLIER)
    return path


def say(log: Path, text: str) -> None:
    with open(log, "a") as file:
        file.write(text)


def test_new_progress_lines_are_shown_once_and_nothing_else(log: Path) -> None:
    out = io.StringIO()
    shown = WorkersProgress(log, len(EARLIER), 1, out)
    shown.show()
    assert out.getvalue() == ""
    with open(log, "a") as file, PlainProgress(file, every=0).task("diffusion", 8) as task:
        task.advance(2, loss=0.25)
    say(log, "a warning: of 3/4 a line\nError: broken\ndiffusion: 4/8  0:0")  # the last line is not complete
    shown.show()
    shown.show()
    (line,) = out.getvalue().splitlines()
    assert line.startswith("diffusion: 2/8  ") and line.endswith("loss 0.25")
    say(log, "3 left\n")
    shown.close()
    assert out.getvalue().splitlines()[1] == "diffusion: 4/8  0:03 left"


def test_a_terminal_has_the_latest_line_in_one_place_and_is_left_empty(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    out = Terminal()
    shown = WorkersProgress(log, len(EARLIER), 2, out)
    say(log, "labels: 1/8  0:09 left\nlabels: 2/8  0:08 left\n")
    shown.show()
    assert out.getvalue() == f"{NEW_LINE_IN_PLACE}labels: 2/8  0:08 left  (part 1 of 2)"[: len(NEW_LINE_IN_PLACE) + 39]
    shown.close()
    assert out.getvalue().endswith(NEW_LINE_IN_PLACE)


def test_a_terminals_line_is_hidden_for_other_output_and_shown_again_with_news(log: Path) -> None:
    out = Terminal()
    shown = WorkersProgress(log, len(EARLIER), 1, out)
    say(log, "labels: 1/8  0:09 left\n")
    shown.show()
    shown.hide()
    shown.hide()
    assert out.getvalue() == f"{NEW_LINE_IN_PLACE}labels: 1/8  0:09 left{NEW_LINE_IN_PLACE}"
    say(log, "labels: 2/8  0:08 left\n")
    shown.show()
    assert out.getvalue().endswith(f"{NEW_LINE_IN_PLACE}labels: 2/8  0:08 left")


def test_a_worker_without_a_log_shows_nothing(tmp_path: Path) -> None:
    out = Terminal()
    shown = WorkersProgress(tmp_path / "none.log", 0, 1, out)
    shown.close()
    assert out.getvalue() == ""
