"""``medlord-bench verify``: find published files that changed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from medlord_bench.cli.options import json_option, store_option


@click.command()
@click.argument("run", required=False)
@store_option
@click.option("--remove", is_flag=True, help="Remove damaged items, so that the run's own command makes them again.")
@json_option
def verify(run: str | None, store: Path, remove: bool, as_json: bool) -> None:
    """Read every published file of RUN, or of the whole store, and compare it with its sha256.

    Names each file that changed, is missing or cannot be read, and what to remove. Exit 1 if there is one.

    \b
    medlord-bench verify RUN
    medlord-bench verify --remove
    """
    from medlord_bench.engine.plan import read_plan
    from medlord_bench.engine.run_folder import locate, settings_of
    from medlord_bench.engine.store import Store
    from medlord_bench.engine.verification import check_run, check_store

    start = time.monotonic()
    place, steps, folders = Store(store), None, []
    if run is None:
        folders = place.runs()
    else:
        folders = [locate(place, run)]
        place, steps = Store(settings_of(folders[0]).store), read_plan(folders[0]).steps
    checked = check_store(place, steps)
    for folder in folders:
        check_run(folder, checked)
    if remove:
        for path in {path for one in checked.damages for path in one.remove}:
            path.unlink(missing_ok=True)
    seconds = time.monotonic() - start
    if as_json:
        rows = [
            {"file": str(one.path), "damage": one.what, "remove": list(map(str, one.remove))} for one in checked.damages
        ]
        facts = {"files": checked.files, "bytes": checked.bytes, "seconds": round(seconds, 2), "removed": remove}
        click.echo(json.dumps({**facts, "damages": rows}))
    else:
        for one in checked.damages:
            click.echo(str(one))
        found = f"{len(checked.damages)} damaged" if checked.damages else "no damage"
        click.echo(f"{checked.files} files, {checked.bytes / 2**30:.2f} GiB in {seconds:.1f} s: {found}")
        if checked.damages and not remove:
            click.echo("nothing removed; to remove: medlord-bench verify --remove, then give the run's command again")
    if checked.damages:
        raise click.exceptions.Exit(1)
