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


@fetch.command()
@click.option("--for", "run_file", type=click.Path(path_type=Path), metavar="RUN.YAML", help="What this run reads.")
@to_option
@click.option("--accept-licence", is_flag=True, help="You have read the licences and accept them.")
@offline_option
def weights(run_file: Path | None, folder: Path | None, accept_licence: bool, offline: bool) -> None:
    """Fetch the pretrained weights that a run reads, or those of every plugin.

    Each file is listed with size, sha256, licence and address. What a licence does not let a program fetch is listed with
    what to do by hand. --to is the weights folder; default: MEDLORD_BENCH_WEIGHTS, or ~/.cache/medlord-bench/weights.

    \b
    medlord-bench fetch weights --for RUN.yaml --offline
    medlord-bench fetch weights --for RUN.yaml --to weights --accept-licence
    """
    from medlord_bench.engine.run_file import read_run_file
    from medlord_bench.fetching import weights as module
    from medlord_bench.nn.pretrained import weights_folder

    rows = module.of_everything() if run_file is None else module.of_run(read_run_file(run_file))
    place = weights_folder(folder)
    for row in rows:
        click.echo("\n".join(module.lines(row, place)))
    files = [row.needed for row in rows if row.needed is not None]
    missing = [one for one in files if not module.state_of(one, place).there]
    by_hand = [one for one in missing if one.by_hand]
    click.echo(f"{len(files)} files, {len(files) - len(missing)} there, {len(by_hand)} to fetch by hand, in {place}")
    if offline or not missing:
        return
    if not accept_licence:
        raise UserError("licences are not accepted; read those above and add --accept-licence")
    with _client() as client:
        for one in missing:
            if not one.by_hand:
                click.echo(f"fetching {one.path}", err=True)
                module.fetch(one, place, client)
    if by_hand:
        raise MissingError(f"{by_hand[0].path}: a licence does not let a program fetch it: {by_hand[0].by_hand}")
