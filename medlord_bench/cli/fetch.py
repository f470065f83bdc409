"""``medlord-bench fetch``: data sets and pretrained weights, before they are needed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medlord_bench.errors import ExitCode, MissingError, Stopped, UserError

if TYPE_CHECKING:
    from medlord_bench.fetching.http import Client

offline_option = click.option(
    "--offline", is_flag=True, envvar="MEDLORD_BENCH_OFFLINE", help="Send nothing: list what to fetch elsewhere."
)
to_option = click.option(
    "--to", "folder", type=click.Path(file_okay=False, path_type=Path), help="Folder to fetch into."
)


@contextmanager
def _client() -> Iterator[Client]:
    """A client that ends its work at a signal: what it has is kept, and the message has the command that goes on."""
    from medlord_bench.fetching.http import Client
    from medlord_bench.util.stopping import Stopper

    stopper = Stopper()
    stopper.install()
    client = Client(stop=stopper.stop)
    try:
        yield client
    except Stopped as stopped:
        code = ExitCode.INTERRUPTED if stopper.interrupted else ExitCode.REQUEUE
        again = shlex.join(["medlord-bench", *sys.argv[1:]])
        raise UserError(f"{stopped}; go on with: {again}", code) from None
    finally:
        client.close()
        stopper.restore()


@click.group()
def fetch() -> None:
    """Fetch public data sets and pretrained weights: resumable, verified, with their licences."""


@fetch.command()
@click.argument("name")
@to_option
@click.option("--cases", type=click.IntRange(min=1), metavar="N", help="Only so many cases; moves only their bytes.")
@click.option(
    "--from", "place", type=click.Choice(["zenodo", "idc"]), help="Where from; default: the first that has it."
)
@click.option("--accept-licence", is_flag=True, help="You have read the licence and accept it.")
@click.option("--jobs", type=click.IntRange(1, 32), default=4, show_default=True, help="Files fetched at once.")
@click.option("--keep-archives", is_flag=True, help="Do not remove an archive once it is unpacked.")
@offline_option
def dataset(
    name: str,
    folder: Path | None,
    cases: int | None,
    place: str | None,
    accept_licence: bool,
    jobs: int,
    keep_archives: bool,
    offline: bool,
) -> None:
    """Fetch NAME: luna16, imagecas, mmwhs, totalsegmentator, totalsegmentator-small, rider-lung.

    Sizes and md5 are read from the data set's record; the disk is checked before the first byte. A fetch that was stopped
    goes on with the same command.

    \b
    medlord-bench fetch dataset totalsegmentator-small --cases 5 --to DIR --accept-licence
    medlord-bench fetch dataset luna16 --from idc --to DIR --accept-licence
    """
    from medlord_bench.fetching import datasets
    from medlord_bench.fetching.request import Request
    from medlord_bench.fetching.sources import source_of
    from medlord_bench.util.progress import make_progress

    source = source_of(name)
    where = datasets.place_of(name, source, place)
    click.echo("\n".join(datasets.terms(source, where)), err=True)
    if offline:
        for line in datasets.addresses(source, where, cases):
            click.echo(line)
        raise MissingError(
            f"{name}: --offline forbids network calls; fetch the addresses above on a machine with a network, or give this "
            "command there, and copy the folder"
        )
    if not accept_licence:
        raise UserError(f"{name}: its licence is not accepted; read it at the address above and add --accept-licence")
    if folder is None:
        raise UserError(f"{name}: no folder; expected --to DIR")
    with _client() as client:
        request = Request(folder, client, cases, jobs, keep_archives, progress=make_progress())
        fetched = datasets.fetch_dataset(name, source, where, request)
    click.echo(datasets.outcome(name, source, where, fetched, str(folder)))
