"""``medlord-bench status``: the progress of a run."""

from __future__ import annotations

import json
from pathlib import Path

import click

from medlord_bench.cli.options import json_option, store_option


@click.command()
@click.argument("run", required=False)
@store_option
@json_option
def status(run: str | None, store: Path, as_json: bool) -> None:
    """Show the progress of RUN step by step; without RUN, of the newest run."""
    from medlord_bench.engine.run_folder import locate
    from medlord_bench.engine.store import Store

    folder = locate(Store(store), run)
    rows = progress(folder)
    finished = (folder / "results" / "scores.json").exists() and all(done == total for _, done, total in rows)
    if as_json:
        steps = [{"step": id, "done": done, "of": total} for id, done, total in rows]
        click.echo(json.dumps({"run": str(folder), "finished": finished, "steps": steps}))
        return
    click.echo(f"{folder}: {'finished' if finished else 'not finished'}")
    for id, done, total in rows:
        click.echo(f"  {'done' if done == total else f'{done}/{total}':>8}  {id}")


def progress(folder: Path) -> list[tuple[str, int, int]]:
    """(step, items published, items wanted) of every step of a run."""
    from medlord_bench.engine.plan import read_plan
    from medlord_bench.engine.run_folder import progress_of, settings_of
    from medlord_bench.engine.store import Store

    store = Store(settings_of(folder).store)
    return [(step.id, *progress_of(store, step)) for step in read_plan(folder).steps]
