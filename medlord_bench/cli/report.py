"""``medlord-bench report``: write the report again, from the run folder alone."""

from __future__ import annotations

import json

import click

from medlord_bench.cli.options import json_option, store_option
from medlord_bench.cli.run import draw


@click.command()
@click.argument("runs", nargs=-1)
@store_option
@json_option
def report(runs: tuple[str, ...], store: click.Path, as_json: bool) -> None:
    """Write the report of each RUN (a folder or its name); without one, of the newest finished run."""
    from pathlib import Path

    from medlord_bench.engine.run_folder import locate, newest_finished
    from medlord_bench.engine.store import Store

    place = Store(Path(str(store)).resolve())
    folders = [locate(place, name) for name in runs] or [newest_finished(place)]
    drawn = {str(folder): [str(path) for path in draw(folder)] for folder in folders}
    click.echo(json.dumps(drawn) if as_json else "\n".join(paths[0] for paths in drawn.values()))
