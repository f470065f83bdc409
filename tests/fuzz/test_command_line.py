"""Random lists of the command line's real options, with values that people give and values that nobody expects."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import strategies as st

from medlord_bench.cli import cli, main
from medlord_bench.engine import runner
from medlord_bench.errors import UserError

VERBS = ("run", "plan", "evaluate", "report", "status", "list", "verify", "clean", "reference", "worker", "memory")
VALUES = (
    *("", " ", "0", "-1", "1", "3", "1e400", "nan", "inf", "-inf", "9" * 400, "9" * 5000, "1e-300", "true", "none", "auto"),
    *("phantom", "folder", "noise", "holdout", "oracle", "medlord@smoke", "medlord@nothing", "command:x", "files", "reference"),
    *("fid", "fid:maisi-compat", "reconstruction", "fid:nothing", "tissue", "downstream", "inline", "local", "cpu", "cuda:7"),
    *("a=b", "dataset.n_test=0", "dataset.shape=1,2", "dataset.shape=32,32,16", "dataset.shape=100000,100000,8", "dataset.", ".a=1"),
    *("generator.steps=nan", "fid.minimum=true", "dataset.hu_window=5,5", "noise.x={", "fid.features=[[[[", "dataset.seed=" + "9" * 5000),
    *("dataset.data_root=/dev/null", "dataset.masks=nothing", "set", "../..", "/dev/null", "/dev/full", "/proc/self/mem", "missing.yaml"),
    *("run.yaml", "store", "empty", "ü", "\udcff", "a\nb", "a" * 300, "a/" * 3000, "*", "--", "-", "0/0", "x/y", "24GiB", "1e99GiB"),
)  # fmt: skip


def options_of(verb: str) -> tuple[list[click.Option], int]:
    """The options of a verb or of its sub-verbs, and how many arguments it takes."""
    context = click.Context(cli)
    command = cli.get_command(context, verb)
    assert command is not None
    commands = [command, *(command.commands.values() if isinstance(command, click.Group) else ())]
    parameters = [one for each in commands for one in each.params]
    return [one for one in parameters if isinstance(one, click.Option)], 2


@st.composite
def command_lines(draw: Any, verb: str) -> list[str]:
    """A verb with some of its options, each with a value if it takes one, and a few other words."""
    options, arguments = options_of(verb)
    words = [verb]
    context = click.Context(cli)
    command = cli.get_command(context, verb)
    if isinstance(command, click.Group):
        words.append(draw(st.sampled_from([*command.commands, "nothing"])))
    likely = draw(st.booleans())  # a request that gets beyond the first check
    if likely and verb in ("run", "plan", "evaluate", "memory"):
        words += ["--dataset", "phantom", "--metric", "fid"]
        words += ["--generator", draw(st.sampled_from(["noise", "holdout", "command:x"]))] if verb != "evaluate" else []
    for option in draw(st.lists(st.sampled_from(options), max_size=5)):
        words.append(draw(st.sampled_from([*option.opts, *option.secondary_opts])))
        if not option.is_flag and draw(st.integers(0, 9)):
            words.append(draw(st.sampled_from(VALUES)))
    for _ in range(draw(st.integers(0, arguments))):
        words.insert(draw(st.integers(1, len(words))), draw(st.sampled_from(VALUES)))
    return words


@pytest.mark.parametrize("verb", VERBS)
def test_command_line(
    fuzz: Any, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text("generators: [noise]\ndataset: phantom\nmetrics: [fid]\n")
    (tmp_path / "empty").mkdir()

    def would_work(*_: object, **__: object) -> None:
        raise UserError("the work would begin here")

    monkeypatch.setattr(runner, "carry_out", would_work)
    environment = dict(os.environ)

    def check(words: list[str]) -> None:
        monkeypatch.setattr(sys, "argv", ["medlord-bench", *words])
        # As Python opens it: what cannot be encoded is escaped.
        err = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")
        monkeypatch.setattr(sys, "stderr", err)
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        finally:
            os.environ.clear()
            os.environ.update(environment)
        err.flush()
        said = err.buffer.getvalue().decode()  # type: ignore[attr-defined]
        capsys.readouterr()
        assert code in (0, 1, 2, 3, 4), said
        assert code != 1 or verb == "verify", said
        if code:
            assert sum(line.startswith("Error: ") for line in said.splitlines()) <= 1 and "Traceback" not in said, said

    fuzz(check, command_lines(verb), 25)
