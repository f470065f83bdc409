"""``medlord-bench calibrate``: the bench tests itself with known faults."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from medlord_bench.cli.options import json_option, run_file_of, settings_of, settings_options, spec_options
from medlord_bench.cli.run import draw, work
from medlord_bench.contracts.calibration import Finding, Record, Seen, Status, sight_rows, versions, write
from medlord_bench.errors import ExitCode

MAX_COLUMN_CHARACTERS = 42  # characters of a column; longer text shifts the rest of its row
MARKS = {"ok": "ok", "failed": "FAILED", "not_checked": "not checked"}


@click.command()
@spec_options("dataset", "data_root", "metrics", "seed", "sets")
@settings_options
@click.option("--table", type=click.Path(path_type=Path, dir_okay=False), help="Write what sees what as Markdown.")
@click.option("--slow", is_flag=True, help="Also train segmenters on noise, on copies and on real cases (nnU-Net).")
@json_option
def calibrate(as_json: bool, table: Path | None, slow: bool, **options: Any) -> None:
    """Test the bench itself: controls with known faults through every metric, and intervals on simulations.

    Prints expected and observed results, and which quantity sees which fault. Exit code 1 if the numbers cannot be
    trusted.

    \b
    medlord-bench calibrate
    medlord-bench calibrate --dataset folder --data-root DIR --set dataset.shape=256,256,128
    """
    options["dataset"] = options["dataset"] or "phantom"
    chosen = bool(options["metrics"])
    request, settings = run_file_of(options), settings_of(options)
    from medlord_bench.checks.calibration.expectations import findings
    from medlord_bench.checks.calibration.experiment import experiment
    from medlord_bench.checks.calibration.sight import demanded, page, sights
    from medlord_bench.checks.calibration.trained import trained_experiment, trained_findings
    from medlord_bench.contracts.results import read_results
    from medlord_bench.util.files import write_text

    file, left_out = experiment(request)
    folder = work(file, settings)
    seen, n = Seen(read_results(folder / "results")[0]), file.samples or 0
    found = [*findings(seen, left_out), *demanded(seen, n)]
    if file.dataset == "phantom" and not chosen:  # the phantom supports every control: an unchecked one is a fault
        found = [one.model_copy(update={"status": "failed"}) if one.status == "not_checked" else one for one in found]
    found += _simulated(file.seed)
    if slow:
        trained = work(trained_experiment(request), settings)
        found += trained_findings(Seen(read_results(trained / "results")[0]))
    record = Record(
        trusted=all(one.status != "failed" for one in found),
        findings=tuple(found),
        sights=tuple(sights(seen)),
        n=n,
        dataset=file.dataset,
        versions=versions(),
        date=datetime.now(UTC).isoformat(timespec="minutes"),
        run=folder.name,
    )
    for place in (settings.store, folder / "results"):
        write(record, place)
    if table is not None:
        write_text(table, page(record.sights, n, file.dataset))
    pages = draw(folder)
    _answer(record, pages, as_json)
    if not record.trusted:
        raise click.exceptions.Exit(int(ExitCode.FAILED))


def _simulated(seed: int) -> list[Finding]:
    """Null p-values and interval coverage on simulated features."""
    from medlord_bench.checks.calibration.simulated import simulate
    from medlord_bench.util.progress import make_progress

    done, shown = [], 0
    with make_progress().task("simulate, per cent", 100) as task:

        def advance(finished: int, total: int) -> None:
            nonlocal shown
            task.advance(100 * finished // total - shown)
            shown = 100 * finished // total

        for one in simulate(seed, progress=advance):
            status: Status = "ok" if one.ok else "failed"
            done.append(
                Finding(fault="simulated", metric=one.name, expected=one.expected, seen=one.seen, status=status)
            )
    return done


def _sights(record: Record) -> list[str]:
    """What sees what, in columns."""
    metrics, rows = sight_rows(record.sights)
    first = max((len(fault) for fault, _ in rows), default=0) + 2
    lines = ["", f"what sees what, n {record.n}".ljust(first) + "  ".join(metrics)]
    for fault, words in rows:
        cells = [word.ljust(len(metric)) for word, metric in zip(words, metrics, strict=True)]
        lines.append((fault.ljust(first) + "  ".join(cells)).rstrip())
    return [*lines, ""]


def _answer(record: Record, pages: list[Path], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**record.model_dump(mode="json"), "report": [str(page) for page in pages]}))
        return
    columns = ("fault", "metric", "expected")
    width = {
        name: min(max(len(getattr(one, name)) for one in record.findings), MAX_COLUMN_CHARACTERS) for name in columns
    }
    for one in record.findings:
        cells = [getattr(one, name).ljust(size) for name, size in width.items()]
        click.echo("  ".join([MARKS[one.status].ljust(11), *cells, one.seen]).rstrip())
    for line in _sights(record):
        click.echo(line)
    counts = {mark: sum(one.status == status for one in record.findings) for status, mark in MARKS.items()}
    click.echo(", ".join(f"{count} {mark}" for mark, count in counts.items()))
    click.echo("the bench can be trusted" if record.trusted else "the bench CANNOT be trusted: see FAILED above")
    click.echo(str(pages[0]))
