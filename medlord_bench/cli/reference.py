"""``medlord-bench reference``: aggregate statistics of real volumes, for collaborators without the data."""

from __future__ import annotations

import json
from pathlib import Path

import click

from medlord_bench.cli.options import json_option, store_option


@click.group()
def reference() -> None:
    """Aggregate statistics of real volumes, so that a collaborator without the data can measure samples."""


@reference.command()
@click.argument("run", required=False)
@click.option(
    "--to", type=click.Path(path_type=Path, dir_okay=False), required=True, metavar="FILE", help="The file to write."
)
@click.option("--allow-few", is_flag=True, help="Write statistics of fewer than 10 real patients too.")
@store_option
@json_option
def export(run: str | None, to: Path, allow_few: bool, store: Path, as_json: bool) -> None:
    """Write the statistics of the real volumes of RUN (a folder or its name; default: the newest finished run).

    The file has no case: no id, no path, no pixel and no value of a single volume. docs/reference.md says what is in it, and
    what statistics of few patients can still reveal.

    \b
    medlord-bench reference export --to reference.safetensors
    medlord-bench evaluate --reference reference.safetensors --synthetic DIR
    """
    from medlord_bench.engine.reference import export as write
    from medlord_bench.engine.run_folder import locate, newest_finished
    from medlord_bench.engine.store import Store

    place = Store(store)
    meta = write(place, locate(place, run) if run else newest_finished(place), to, allow_few)
    held = {one.name: one.patients for one in meta.metrics if one.patients is not None}
    if as_json:
        click.echo(json.dumps({"file": str(to), "bytes": to.stat().st_size, "metrics": held}))
        return
    for one in meta.metrics:
        has = (
            "needs cases" if one.patients is None else f"statistics of {one.patients} or more patients, {one.protocol}"
        )
        click.echo(f"{one.name}: {has}")
    click.echo(f"{to} ({to.stat().st_size / 2**20:.1f} MiB)")
