"""Every command of the documentation has options that exist; it runs in a test, or its page says that it does not."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from medlord_bench.cli import cli
from medlord_bench.contracts import registry

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").rglob("*.md"))
SHELL = ("", "bash", "sh", "console")
PROGRAMS = ("medlord-bench", "python", "pip", "make", "uv", "uvx", "pipx", "git", "pytest", "export")
LEFT_OUT = ("...", "[...]", "[RUN]", "[RUN...]", "[DIR]")  # of commands that a page shortens
PAGE_MARK = re.compile(r"<!-- commands of this page are not run: .{5,} -->")
MARK = re.compile(r"<!-- not run: .{5,} -->\s*\Z")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAVED = re.compile(r"[Ss]ave .*?`(\w+\.\w+)`", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block. before: the paragraph above it. marked: whether the page says that it is not run."""

    page: Path
    line: int
    language: str
    text: str
    before: str
    marked: bool

    @property
    def file(self) -> str:
        """The name under which the page tells the reader to save this block, or an empty string."""
        found = SAVED.search(self.before)
        return found.group(1) if found and self.language in ("python", "yaml") else ""

    def commands(self) -> Iterator[list[str]]:
        """The words of each command of a shell block; output and everything else is left out."""
        if self.language not in SHELL:
            return
        for line in self.text.replace("\\\n", " ").splitlines():
            if not line.strip().startswith(PROGRAMS):
                continue
            words = shlex.split(line, comments=True)
            while ";" in (joined := [word[-1:] for word in words]) and words:
                end = joined.index(";") + 1
                yield [*words[: end - 1], words[end - 1][:-1]]
                words = words[end:]
            if words:
                yield words


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    whole = PAGE_MARK.search(text) is not None
    for found in FENCE.finditer(text):
        above = text[: found.start()].rstrip()
        yield Block(
            page,
            text.count("\n", 0, found.start()) + 1,
            found.group(1),
            found.group(2),
            above.rpartition("\n\n")[2],
            whole or MARK.search(above) is not None,
        )


def commands() -> list[Any]:
    return [
        pytest.param(words[1:], id=f"{page.relative_to(ROOT)}:{block.line} {' '.join(words[1:4])}")
        for page in PAGES
        for block in blocks(page)
        for words in block.commands()
        if words[0] == "medlord-bench"
    ]


def parse(words: list[str]) -> None:
    """Let click read a command without executing it. Raises `click.UsageError` as the command line would."""
    command: click.Command = cli
    context: click.Context | None = None
    name: str | None = "medlord-bench"
    while isinstance(command, click.Group):
        context = command.make_context(name, list(words), parent=context)
        name, found, words = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        command = found
    try:
        command.make_context(name, list(words), parent=context)
    except click.BadParameter as error:
        if "does not exist" not in str(error):  # the reader's own folders are not here
            raise
    except click.exceptions.Exit:  # --help
        pass


@pytest.mark.parametrize("words", commands())
def test_its_verb_and_options_exist(words: list[str]) -> None:
    parse([word for word in words if word not in LEFT_OUT])


def test_a_wrong_command_is_seen() -> None:
    for words in (["rum"], ["run", "--generators", "x"], ["reading", "exprot"], ["report", "diff", "--only"]):
        with pytest.raises(click.UsageError):
            parse(words)


def test_pages_without_a_test_say_so() -> None:
    """Tutorials run below; a page outside them, or a block, that does not run has a mark."""
    unmarked = [
        f"{page.relative_to(ROOT)}:{block.line}"
        for page in PAGES
        if page not in TUTORIALS
        for block in blocks(page)
        if not block.marked and any(block.commands())
    ]
    assert unmarked == []


def carry_out(block: Block, folder: Path, bench: Any) -> None:
    """Do what a reader of a tutorial does with a block, in `folder`."""
    if block.file:
        runs = [path.name for path in folder.glob("*/runs/*")]
        (folder / block.file).write_text(block.text.replace("RUN", runs[-1]) if runs else block.text)
        return
    done: Any
    if block.language == "python":
        command = [sys.executable, "-c", block.text]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    for words in block.commands():
        if words[0] == "medlord-bench":
            done = bench(*words[1:], prelude=f"import os; os.chdir({str(folder)!r})")
            assert done.code == 0, f"{words}: {done.err}"
        else:
            assert words[0] == "python", f"{words}: no test carries this out; mark the block"
            done = subprocess.run([sys.executable, *words[1:]], cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_does_what_it_says(page: Path, bench: Any, tmp_path: Path) -> None:
    for block in blocks(page):
        if not block.marked:
            carry_out(block, tmp_path, bench)


# --------------------------------------------------------------------------------------------------------------- the site
def test_every_page_is_in_the_navigation_of_the_site() -> None:
    navigation = yaml.dump(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    named = set(re.findall(r"[\w/-]+\.md", navigation))
    docs = ROOT / "docs"
    assert named == {page.relative_to(docs).as_posix() for page in docs.rglob("*.md")}


@pytest.mark.parametrize("kind", ["generators", "metrics"])
def test_every_generator_and_metric_has_a_page(kind: str) -> None:
    pages = ROOT / "docs" / kind
    text = "".join(page.read_text() for page in pages.glob("*.md"))
    own = [entry.name for entry in registry.entries(kind) if entry.distribution == "medlord-bench"]
    assert [name for name in own if f"`{name}`" not in text and not (pages / f"{name}.md").exists()] == []


def test_links_to_files_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s:]+)(?:#[^)\s]*)?\)", FENCE.sub("", page.read_text(encoding="utf-8")))
        if not (page.parent / target).exists()
    ]
    assert broken == []
