"""``medlord-bench new``: a plugin of one's own, as a distribution that installs, passes its check and runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from medlord_bench.contracts import registry
from medlord_bench.errors import UserError
from medlord_bench.util.files import write_text
from medlord_bench.util.version import __version__

KINDS = ("generators", "metrics")  # those that have a template
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
MODULE, SUFFIX = "MODULE", ".j2"  # in the names of the template's files


@click.command()
@click.argument("kind")
@click.argument("name")
@click.option(
    "--to", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the new distribution.  [default: ./NAME]"
)
def new(kind: str, name: str, to: Path | None) -> None:
    """Write a plugin of your own: KIND is generator or metric.

    The new distribution works as it is: it installs, passes its check and runs on the phantom. Then change its code.
    """
    folder = write_plugin(registry.kind_of(kind), name, Path(name) if to is None else to)
    place = shlex.quote(str(folder) if folder.is_absolute() else f"./{folder}")
    single = registry.kind_of(kind).removesuffix("s")
    click.echo(f"pip install -e {place}\nmedlord-bench check {single} {name}\npython -m pytest {place}")


def write_plugin(kind: str, name: str, folder: Path) -> Path:
    """Write the distribution of a plugin `name` into `folder`, which may exist but holds nothing.

    Raises `UserError` for a kind without a template, a name that cannot be used, and a folder with files.
    """
    if kind not in KINDS:
        raise UserError(registry.unknown("kind with a template", kind, KINDS))
    _check_name(kind, name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is not an empty folder; name another with --to DIR")
    for path, text in _rendered(kind, name):
        write_text(folder / path, text)
    return folder


def module_of(name: str) -> str:
    """The name of the module of a plugin. With its prefix it hides no other module, nor is hidden by a folder `name`."""
    return f"medlord_bench_{name.replace('-', '_')}"


def _check_name(kind: str, name: str) -> None:
    """Raise `UserError` where a plugin of that name could not be named on the command line, or would hide another."""
    if not NAME.fullmatch(name):
        raise UserError(f"name {name!r}: expected lower-case letters, digits and single hyphens, e.g. my-vae")
    for entry in registry.entries(kind):
        if entry.name == name:
            raise UserError(
                f"name {name!r}: {entry.distribution} has a {kind.removesuffix('s')} of that name; choose another"
            )


def _rendered(kind: str, name: str) -> Iterator[tuple[str, str]]:
    """(path inside the distribution, text) of each file."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    words = {
        "name": name,
        "module": module_of(name),
        "quantity": name.replace("-", "_"),  # of a metric
        "prefix": "".join(part.capitalize() for part in name.split("-")),  # of its classes
        "bench_version": __version__,
    }
    for path, source in _sources(files("medlord_bench.cli") / "templates" / kind.removesuffix("s")):
        target = path.removesuffix(SUFFIX).replace(MODULE, module_of(name))
        yield target, environment.from_string(source.read_text(encoding="utf-8")).render(words)


def _sources(folder: Traversable, inside: str = "") -> Iterator[tuple[str, Traversable]]:
    """(path below the template, file) of each file of a template."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _sources(entry, f"{inside}{entry.name}/")
        elif entry.name.endswith(SUFFIX):
            yield f"{inside}{entry.name}", entry
