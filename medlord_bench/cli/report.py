"""``medlord-bench report``: tables, figures and the page, from run folders alone."""

from __future__ import annotations

import json
from pathlib import Path

import click

from medlord_bench.cli.options import json_option, store_option


@click.command()
@click.argument("runs", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Default: the run's folder `report`.")
@click.option(
    "--only", multiple=True, metavar="REPORT", help="page, tables, figures, card; may be repeated. Default: all."
)
@click.option("--font", help="Font of the figures; an installed one.")
@click.option("--published", is_flag=True, help="Add the paper's own values to the tables, in their own column.")
@click.option("--planes", is_flag=True, help="Give the values of single planes in the tables too.")
@click.option("--share", is_flag=True, help="Leave out pictures, case ids, paths and host names of the real data.")
@store_option
@json_option
def report(
    runs: tuple[str, ...], out: Path | None, only: tuple[str, ...], store: Path, as_json: bool, **options: object
) -> None:
    """Write the report of each RUN (a folder or its name); without one, of the newest finished run.

    Several runs of one protocol stand in one report.

    \b
    medlord-bench report
    medlord-bench report RUN1 RUN2 --out comparison
    """
    from medlord_bench.engine.run_folder import locate, newest_finished
    from medlord_bench.engine.store import Store
    from medlord_bench.results.merge import read_runs
    from medlord_bench.results.report import ReportOptions, write_reports

    place = Store(store.resolve())
    folders = [locate(place, name) for name in runs] or [newest_finished(place)]
    run = read_runs(folders)
    default = "+".join(origin.key for origin in run.origins)
    out = out or (folders[0] / "report" if len(run.origins) == 1 else place.root / "reports" / default)
    written = [str(path) for path in write_reports(run, out, ReportOptions.model_validate(options), only)]
    click.echo(json.dumps({"report": str(out), "files": written}) if as_json else written[0])
