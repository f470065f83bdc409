"""``medlord-bench clean``: remove objects that no run needs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medlord_bench.cli.options import json_option, store_option
from medlord_bench.util.files import TEMPORARY

if TYPE_CHECKING:
    from medlord_bench.engine.store import Store

ABANDONED_SECONDS = 24 * 3600.0  # no single file takes a day to write


@click.command()
@store_option
@click.option("--yes", is_flag=True, help="Remove; without it, only list.")
@json_option
def clean(store: Path, yes: bool, as_json: bool) -> None:
    """List (or with --yes remove) the store's objects that no run folder refers to. Delete a run's folder first.

    Incomplete files that a killed process left more than a day ago are included.
    """
    from medlord_bench.engine.store import Store

    place = Store(store)
    unused = unreferenced(place)
    unused += [path for path in place.leftovers(ABANDONED_SECONDS) if not any(map(path.is_relative_to, unused))]
    rows = [{"object": str(path), "mib": round(_size(path) / 2**20, 1)} for path in unused]
    if yes:
        kept = _remove(place, unused)
        rows = [row for row in rows if Path(str(row["object"])) not in kept]
    if as_json:
        click.echo(json.dumps({"removed": yes, "objects": rows}))
        return
    for row in rows:
        click.echo(f"{'removed' if yes else 'unused'}  {row['mib']:>10} MiB  {row['object']}")
    if rows and not yes:
        click.echo("nothing removed; to remove: medlord-bench clean --yes")


def unreferenced(store: Store) -> list[Path]:
    """Objects that no run's plan names, neither as a step nor as the training behind one."""
    used = _used(store)
    return [path for path in store.objects() if (path.parent.name, path.name) not in used]


def _used(store: Store) -> set[tuple[str, str]]:
    """(kind, key) of every object that a run's plan names."""
    from medlord_bench.engine.plan import read_plan
    from medlord_bench.engine.store import arm_training, training_names

    used: set[tuple[str, str]] = set()
    for folder in store.runs():
        for step in read_plan(folder).steps:
            used.add((step.kind, step.key))
            made = store.object(step.kind, step.key)
            if step.kind in ("arms", "training-plan"):
                used |= {("trainings", arm_training(step.key, item)) for item in step.items}
            if step.kind == "weights":
                budget = step.detail["lineage"], step.detail["steps"], step.detail["seconds"]
                used |= {("trainings", name) for name in training_names(*budget)}
                if made.has("weights"):
                    used.add(("trainings", made.sidecar("weights").facts["training"]))
    return used


def _size(place: Path) -> int:
    return sum(path.stat().st_size for path in (place, *place.rglob("*")) if path.is_file())


def _remove(store: Store, unused: Sequence[Path]) -> set[Path]:
    """Remove objects and leftovers but those that a run has asked for meanwhile, which are returned.

    A run writes its plan before it looks which items are there. So an object is first hidden by its new name, then the plans
    are read again: a plan that is not among them cannot have seen the object.
    """
    hidden = {}
    for path in unused:
        if path.is_dir() and not path.name.startswith(TEMPORARY):
            hidden[path] = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
            path.rename(hidden[path])
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    used = _used(store)
    kept = {path for path in hidden if (path.parent.name, path.name) in used}
    for path, aside in hidden.items():
        if path in kept and not path.exists():
            aside.rename(path)
        else:
            shutil.rmtree(aside)
    return kept
