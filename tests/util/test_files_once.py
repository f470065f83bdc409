"""A file that several processes need and one makes."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from medlord_bench.util.files import publish_once


def make(path: Path) -> None:
    def write(temporary: Path) -> None:
        with open(path.with_name("made"), "a") as note:
            note.write("once\n")
        time.sleep(0.2)
        temporary.write_text("all")

    publish_once(path, write)
    assert path.read_text() == "all"


def test_of_several_processes_one_makes_the_file(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3, get_context("fork")) as pool:
        list(pool.map(make, [tmp_path / "folder" / "file"] * 3))
    assert (tmp_path / "folder" / "made").read_text() == "once\n"
