"""``medlord-bench report``: tables, figures and the page, from run folders alone."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medlord_bench.cli.options import json_option, store_option
from medlord_bench.errors import UserError

if TYPE_CHECKING:
    from medlord_bench.results.run_results import RunResults

WRITE = "write"


class Report(click.Group):
    """`report [RUN...]` writes; `report diff A B` is its other verb. A run of that name is given as a path: ./diff."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if args and args[0] in self.commands else [WRITE, *args])


@click.group(cls=Report)
def report() -> None:
    """Write the report of finished runs."""


@report.command(WRITE)
@click.argument("runs", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Default: the run's folder `report`.")
@click.option(
    "--only", multiple=True, metavar="REPORT", help="page, tables, figures, card; may be repeated. Default: all."
)
@click.option("--font", help="Font of the figures; an installed one.")
@click.option("--published", is_flag=True, help="Add the paper's own values to the tables, in grids of their own.")
@click.option("--planes", is_flag=True, help="Give the values of single planes in the tables too.")
@click.option("--share", is_flag=True, help="Leave out pictures, case ids, paths and host names of the real data.")
@click.option("--crate", is_flag=True, help="Also describe the files as a research object (RO-Crate).")
@click.option("--serve", is_flag=True, help="Show the page at full resolution, on 127.0.0.1, until Ctrl-C.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of --serve; default: a free one.")
@store_option
@json_option
def write(
    runs: tuple[str, ...],
    out: Path | None,
    only: tuple[str, ...],
    crate: bool,
    serve: bool,
    port: int,
    store: Path,
    as_json: bool,
    **options: object,
) -> None:
    """Write the report of each RUN (a folder or its name); without one, of the newest finished run.

    Several runs of one protocol are put into one report, and compared with each other. `medlord-bench report diff A B` says
    what differs between two runs.

    \b
    medlord-bench report
    medlord-bench report RUN1 RUN2 --out comparison
    """
    from medlord_bench.engine.run_folder import locate, newest_finished
    from medlord_bench.engine.store import Store
    from medlord_bench.results.crate import write_crate
    from medlord_bench.results.merge import read_runs
    from medlord_bench.results.report import ReportOptions, write_reports
    from medlord_bench.results.share import shareable

    place = Store(store)
    folders = [locate(place, name) for name in runs] or [newest_finished(place)]
    run = read_runs(folders)
    default = "+".join(origin.key for origin in run.origins)
    out = out or (folders[0] / "report" if len(run.origins) == 1 else place.root / "reports" / default)
    chosen = ReportOptions.model_validate(options)
    if serve and chosen.share:
        raise UserError("--serve shows the real volumes, and --share leaves them out: give one of them")
    if port and not serve:
        raise UserError(f"--port {port} is of --serve, which is not given: add --serve, or leave --port out")
    if chosen.font and only and "figures" not in only:
        raise UserError(f"--font {chosen.font} is of the figures, which --only leaves out: add --only figures")
    written = write_reports(run, out, chosen, only)
    if crate:
        written.append(write_crate(shareable(run) if chosen.share else run, out, written))
    names = [str(path) for path in written]
    page = out / "page.html"
    click.echo(json.dumps({"report": str(out), "files": names}) if as_json else page if page in written else out)
    if serve:
        _serve(run, out / "page.html", port)


def _serve(run: RunResults, page: Path, port: int) -> None:
    """Serve the page with the run's whole volumes until Ctrl-C."""
    from medlord_bench.results.full_volumes import full_volume
    from medlord_bench.util.local_server import Answer, LocalServer

    if not page.exists():
        raise UserError(f"--serve shows the page, which --only left out: {page} does not exist")
    html = page.read_bytes().replace(b"<html ", b'<html data-full="volume" ', 1)
    routes = {
        "page.html": lambda query: Answer("text/html; charset=utf-8", html),
        "volume": lambda query: full_volume(run, query),
    }
    with LocalServer(routes, port) as server:
        click.echo(server.url("page.html"))
        with suppress(KeyboardInterrupt):
            server.serve_forever()


@report.command()
@click.argument("first")
@click.argument("second")
@click.option("--all", "every", is_flag=True, help="Also the numbers of single regions and planes.")
@store_option
@json_option
def diff(first: str, second: str, every: bool, store: Path, as_json: bool) -> None:
    """What differs between two runs: settings, versions, protocols, and numbers with their paired test."""
    from medlord_bench.engine.run_folder import locate
    from medlord_bench.engine.store import Store
    from medlord_bench.results.diff import diff as compare
    from medlord_bench.results.run_results import read_run

    place = Store(store)
    found = compare(*(read_run(locate(place, name)) for name in (first, second)))
    if as_json:
        click.echo(json.dumps(found.to_json(), default=str))
        return
    for change in found.changes:
        click.echo(f"{change.what} {change.field}: {change.first} -> {change.second}")
    for contestant, run in found.only:
        click.echo(f"{contestant}: only in {run}")
    changed = [one for one in found.numbers if one.changed]
    shown = [one for one in changed if every or not one.region]
    for one in shown:
        name = " ".join(
            filter(None, (one.generator, one.metric, one.region, f"({one.reference})" if one.reference else ""))
        )
        values = " -> ".join("not run" if value is None else f"{value:.6g}" for value in (one.first, one.second))
        test = f", p {one.p:.3g}" if one.p is not None else ""
        click.echo(f"{name}: {values}{test}" + (f" [{one.reason}]" if one.reason else ""))
    same = len(found.numbers) - len(changed)
    hidden = (
        f", {len(changed) - len(shown)} of them of regions and planes: see --all" if len(shown) < len(changed) else ""
    )
    click.echo(f"{len(found.numbers)} numbers in both runs: {same} equal, {len(changed)} differ{hidden}")
