"""``medlord-bench list``: the installed plugins."""

from __future__ import annotations

import json
from typing import Any

import click

from medlord_bench.cli.options import json_option
from medlord_bench.contracts import registry
from medlord_bench.errors import UserError


@click.command()
@click.argument("kind", default="generators")
@json_option
def list_command(kind: str, as_json: bool) -> None:
    """List plugins of a KIND: generators, datasets, metrics, segmenters, extractors, reports, executors, commands.

    A plugin that cannot be loaded is listed with its missing requirement.
    """
    rows = [_describe(entry) for entry in registry.entries(registry.kind_of(kind))]
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        extra = [f"{name}: {', '.join(row[name])}" for name in ("variants", "presets", "capabilities") if row.get(name)]
        click.echo("  ".join([f"{row['name']:<16}", row.get("summary") or row.get("problem", ""), *extra]).rstrip())


def _describe(entry: registry.Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"name": entry.name, "distribution": entry.distribution, "version": entry.version}
    try:
        plugin = registry.load(entry.kind, entry.name)
    except UserError as error:
        return row | {"problem": str(error)}
    row["summary"] = (plugin.__doc__ or "").strip().partition("\n")[0]
    for name in ("variants", "presets", "capabilities"):
        if hasattr(plugin, name):
            row[name] = sorted(getattr(plugin, name))
    return row
