"""The page of the command line is made from its options: `UPDATE_CLI_REFERENCE=1 pytest tests/test_cli_page.py`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from pathlib import Path

import click

from medlord_bench.cli import VERBS, cli

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
HEAD = """# Command line

<!-- Made by tests/test_cli_page.py. Commands of other distributions (entry points) are not listed. -->

Options of `medlord-bench` itself come before the verb.
"""


def reference() -> str:
    parts = [HEAD, *_section(cli, "medlord-bench", ())]
    for verb in VERBS:
        command = cli.get_command(click.Context(cli), verb)
        assert command is not None
        parts += _sections(command, f"medlord-bench {verb}")
    return "\n".join(parts).rstrip() + "\n"


def _sections(command: click.Command, name: str) -> Iterator[str]:
    """The section of a command, and those of its own commands."""
    inside = command.commands if isinstance(command, click.Group) else {}
    yield f"## `{name}`\n" if name.count(" ") == 1 else f"### `{name}`\n"
    yield from _section(command, name, tuple(inside))
    for verb, one in inside.items():
        yield from _sections(one, f"{name} {verb}")


def _section(command: click.Command, name: str, inside: tuple[str, ...]) -> Iterator[str]:
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    words = [
        f"[{_name(one)}{'...' if one.nargs == -1 else ''}]" if not one.required else _name(one) for one in arguments
    ]
    if isinstance(command, click.Group):
        words.append("COMMAND")
    yield f"```text\n{' '.join([name, '[OPTIONS]', *words])}\n```\n"
    yield _prose(command.help or "")
    if inside:
        yield "Commands: " + ", ".join(f"`{verb}`" for verb in inside) + ".\n"
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    if options:
        yield "| option | meaning |\n|---|---|"
        yield "\n".join(_row(option) for option in options) + "\n"


def _prose(text: str) -> str:
    """Paragraphs; those that click leaves as they are (after a backspace) are examples."""
    return "\n\n".join(
        "```text\n" + part.removeprefix("\b\n") + "\n```" if part.startswith("\b") else part
        for part in inspect.cleandoc(text.partition("\f")[0]).split("\n\n")
    ) + "\n"  # fmt: skip


def _name(argument: click.Argument) -> str:
    return (argument.metavar or str(argument.name).upper()).strip("[]")


def _row(option: click.Option) -> str:
    names = ", ".join(option.opts) + (" / " + ", ".join(option.secondary_opts) if option.secondary_opts else "")
    if isinstance(option.type, click.Choice):
        value = "|".join(map(str, option.type.choices))
    else:
        value = option.metavar or option.type.name.partition(" ")[0].upper()
    shown = names if option.is_flag or option.count else f"{names} {value}"
    notes = [option.help or ""]
    if option.required:
        notes.append("Required.")
    if notes[0] and notes[0][-1] not in ".!?":
        notes[0] += "."
    if option.multiple and "repeated" not in notes[0]:
        notes.append("May be repeated.")
    if option.show_default is True and option.default is not None and not option.is_flag:
        notes.append(f"Default: `{option.default}`.")
    if option.envvar:
        notes.append(f"Environment: `{option.envvar}`.")
    cells = (f"`{shown}`", " ".join(note for note in notes if note))
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def test_the_page_has_every_verb_with_its_options_as_they_are_now() -> None:
    made = reference()
    if os.environ.get("UPDATE_CLI_REFERENCE"):
        PAGE.write_text(made, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == made, "options changed: UPDATE_CLI_REFERENCE=1 writes docs/cli.md anew"


def test_every_option_of_run_and_every_verb_is_on_the_page() -> None:
    made = reference()
    assert all(f"## `medlord-bench {verb}`" in made for verb in VERBS)
    run = cli.get_command(click.Context(cli), "run")
    assert run is not None
    section = made.partition("## `medlord-bench run`")[2].partition("\n## ")[0]
    assert all(param.opts[0] in section for param in run.params if isinstance(param, click.Option))
