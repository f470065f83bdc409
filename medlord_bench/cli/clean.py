"""``medlord-bench clean``: remove objects that no run needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from medlord_bench.cli.options import json_option, keep_option, store_option
from medlord_bench.errors import UserError

ABANDONED_SECONDS = 24 * 3600.0  # no single file takes a day to write


@click.command()
@store_option
@click.option("--yes", is_flag=True, help="Remove; without it, only list.")
@click.option("--dry-run", is_flag=True, help="Only list what would be removed, and how much it frees; the default.")
@keep_option
@json_option
def clean(store: Path, yes: bool, dry_run: bool, keep: Any, as_json: bool) -> None:
    """List (or with --yes remove) the store's objects that no run folder refers to. Delete a run's folder first.

    With --keep, also what finished runs can do without. Incomplete files that a killed process left more than a day ago are
    included.
    """
    from medlord_bench.engine import cleaning
    from medlord_bench.engine.store import Store

    if yes and dry_run:
        raise UserError("--dry-run: given with --yes; expected one of the two")
    place = Store(store)
    found = cleaning.unused(place, keep)
    inside = [one.path for one in found]
    left = [path for path in place.leftovers(ABANDONED_SECONDS) if not any(map(path.is_relative_to, inside))]
    found += [cleaning.Unused(path, cleaning.size_of(path)) for path in left]
    if yes:
        cleaning.note_dropped(place, keep)
        kept = cleaning.remove([one.path for one in found], lambda: cleaning.used(place, keep))
        found = [one for one in found if one.path not in kept]
    rows = [{"object": str(one.path), "mib": round(one.size / 2**20, 1)} for one in found]
    total = round(sum(one.size for one in found) / 2**20, 1)
    if as_json:
        click.echo(json.dumps({"removed": yes, "objects": rows, "mib": total}))
        return
    for row in rows:
        click.echo(f"{'removed' if yes else 'unused'}  {row['mib']:>10} MiB  {row['object']}")
    if rows:
        click.echo(f"{len(rows)} objects, {total} MiB {'freed' if yes else 'would be freed'}")
    if rows and not yes:
        again = "" if keep == "all" else f" --keep {keep}"
        click.echo(f"nothing removed; to remove: medlord-bench clean{again} --yes")
