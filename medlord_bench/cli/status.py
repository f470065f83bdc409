"""``medlord-bench status``: the progress of a run."""

from __future__ import annotations

import json
from pathlib import Path

import click

from medlord_bench.cli.options import json_option, store_option
from medlord_bench.errors import UserError


@click.command()
@click.argument("run", required=False)
@store_option
@json_option
def status(run: str | None, store: Path, as_json: bool) -> None:
    """Show the progress of RUN step by step; without RUN, of the newest run."""
    from medlord_bench.engine.cleaning import dropped
    from medlord_bench.engine.plan import read_plan
    from medlord_bench.engine.run_folder import locate
    from medlord_bench.engine.store import Store

    folder = locate(Store(store), run)
    rows = progress(folder)
    queue, silent = _queue(folder)
    gone = {step.id for step in read_plan(folder).steps if step.kind in dropped(folder)}
    complete = all(done == total for id, done, total in rows if id not in gone)
    finished = (folder / "results" / "scores.json").exists() and complete
    if as_json:
        steps = [{"step": id, "done": done, "of": total, "queue": queue.get(id, "")} for id, done, total in rows]
        click.echo(json.dumps({"run": str(folder), "finished": finished, "steps": steps, "queue_error": silent}))
        return
    click.echo(f"{folder}: {'finished' if finished else 'not finished'}")
    for id, done, total in rows:
        jobs = f"  [{queue[id]}]" if id in queue and done < total else ""
        state = "done" if done == total else "removed" if finished and id in gone else f"{done}/{total}"
        click.echo(f"  {state:>8}  {id}{jobs}")
    if silent:
        click.echo(f"  the queue is not known: {silent}")


def _queue(folder: Path) -> tuple[dict[str, str], str]:
    """Step -> its jobs in the queue by state; and why the queue is not known, if it is not."""
    from medlord_bench.engine.executors import slurm

    if not slurm.recorded(folder):
        return {}, ""
    try:
        return {step: slurm.summary(slurm.newest(tasks)) for step, tasks in slurm.queued(folder).items()}, ""
    except UserError as error:
        return {}, str(error)


def progress(folder: Path) -> list[tuple[str, int, int]]:
    """(step, items published, items wanted) of every step of a run."""
    from medlord_bench.engine.plan import read_plan
    from medlord_bench.engine.run_folder import progress_of, settings_of
    from medlord_bench.engine.store import Store

    store = Store(settings_of(folder).store)
    return [(step.id, *progress_of(store, step)) for step in read_plan(folder).steps]
