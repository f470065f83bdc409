"""``medlord-bench cancel``: cancel the jobs of a run on a cluster."""

from __future__ import annotations

from pathlib import Path

import click

from medlord_bench.cli.options import store_option


@click.command()
@click.argument("run", required=False)
@store_option
def cancel(run: str | None, store: Path) -> None:
    """Cancel the jobs of RUN that are in the queue; without RUN, of the newest run. Published items are kept."""
    from medlord_bench.engine.executors import slurm
    from medlord_bench.engine.run_folder import locate
    from medlord_bench.engine.store import Store

    folder = locate(Store(store), run)
    click.echo(f"{folder}: cancelled {slurm.cancel(folder)} jobs; the same run command goes on")
