"""``medlord-bench check``: a plugin against its contract."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import tempfile
from pathlib import Path

import click

from medlord_bench.cli.options import json_option
from medlord_bench.errors import ExitCode


@click.command()
@click.argument("kind")
@click.argument("name")
@json_option
def check(kind: str, name: str, as_json: bool) -> None:
    """Test the plugin NAME of a KIND (generator, dataset, metric, extractor, segmenter, report) against its contract."""
    from medlord_bench.checks import contract
    from medlord_bench.contracts import Run, registry
    from medlord_bench.util.progress import SilentProgress

    found = []
    with tempfile.TemporaryDirectory(prefix="medlord-bench-check-") as folder:
        log = logging.getLogger("medlord_bench")
        run = Run(device="cpu", seed=0, progress=SilentProgress(), log=log, scratch=Path(folder))
        for finding in contract.check(registry.kind_of(kind), name, run):
            found.append(finding)
            if not as_json:
                detail = f"  ({finding.detail})" if finding.detail else ""
                click.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name}{detail}")
    good = all(finding.ok for finding in found)
    if as_json:
        click.echo(json.dumps({"ok": good, "checks": [dataclasses.asdict(finding) for finding in found]}))
    else:
        click.echo(f"{sum(f.ok for f in found)} of {len(found)} checks hold")
    sys.exit(ExitCode.OK if good else ExitCode.FAILED)
