"""``medlord-bench plan``: what a run would do."""

from __future__ import annotations

import json
from typing import Any

import click

from medlord_bench import config
from medlord_bench.cli.options import json_option, run_file_of, settings_of, settings_options, spec_options

# images: int16 and an uint8 mask, uncompressed. The rest is gzipped int16: seen 1.3 on the phantom, 1.4 to 1.5 on CT.
BYTES_PER_VOXEL = {"images": 3.0, "samples": 1.5, "conditional": 1.5, "reconstructions": 1.5}


@click.command()
@spec_options()
@settings_options
@json_option
def plan(as_json: bool, **options: Any) -> None:
    """Show the steps that `run` would do with the same options, what is there already, and the disk they need."""
    file = run_file_of(options)
    settings = settings_of(options)
    from medlord_bench.plan import build
    from medlord_bench.store import Store
    from medlord_bench.worker import missing

    planned = build(config.resolve(file))
    store = Store(settings.store)
    x, y, z = planned.protocol.grid.shape
    rows: list[dict[str, Any]] = []
    for step in planned.steps:
        todo = len(missing(store, step))
        per_item = BYTES_PER_VOXEL.get(step.kind) if todo else None
        disk = None if per_item is None else round(todo * per_item * x * y * z / 2**30, 3)
        row = {"step": step.id, "key": step.key, "to_do": todo, "of": len(step.items), "disk_gib": disk}
        if step.kind == "select":
            row["volumes_to_sample"] = len(step.detail["candidates"]) * step.detail["samples"]
        rows.append(row)
    if as_json:
        click.echo(json.dumps({"protocol": planned.protocol.id(), "steps": rows}))
        return
    click.echo(f"protocol {planned.protocol.id()}, grid {x}x{y}x{z}, store {settings.store}")
    for row in rows:
        size = "" if row["disk_gib"] is None else f"about {row['disk_gib']} GiB"
        if "volumes_to_sample" in row:
            size = f"samples {row['volumes_to_sample']} volumes to choose from"
        state = "there" if row["to_do"] == 0 else f"{row['to_do']} of {row['of']} to do"
        click.echo(f"  {state:>18}  {row['step']}  {size}".rstrip())
