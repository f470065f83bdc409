"""``medlord-bench run``: train or load, sample, measure, report."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medlord_bench.cli.options import (
    json_option,
    memory_check_option,
    run_file_of,
    settings_of,
    settings_options,
    spec_options,
)
from medlord_bench.engine import resolve
from medlord_bench.engine.run_file import RunFile
from medlord_bench.engine.worker import Settings
from medlord_bench.errors import ExitCode, Stopped, UserError
from medlord_bench.memory.hold import limit_on
from medlord_bench.util.stopping import Stopper

if TYPE_CHECKING:
    from medlord_bench.engine.plan import Plan

log = logging.getLogger("medlord_bench")


@click.command()
@spec_options()
@settings_options
@click.option("--report/--no-report", "report", default=True, help="Write the page at the end.")
@click.option(
    "--detach", is_flag=True, help="Submit all jobs to Slurm, with a last one that collects the results, and return."
)
@memory_check_option
@json_option
def run(report: bool, detach: bool, memory_check: bool, as_json: bool, **options: Any) -> None:
    """Train or load generators, sample, measure, and write the page. Run the same command again to resume.

    \b
    medlord-bench run --generator medlord --dataset phantom
    medlord-bench run --generator medlord --dataset pccta --data-root DIR
    medlord-bench run experiment.yaml --seed 1
    """
    if detach:
        folder, jobs = hand_over(run_file_of(options), settings_of(options))
        log.info("see medlord-bench status; end it with medlord-bench cancel")
        click.echo(json.dumps({"run": str(folder), "jobs": jobs}) if as_json else str(folder))
        return
    folder = work(run_file_of(options), settings_of(options), memory_check)
    pages = draw(folder) if report else []
    for line in headlines(folder):
        log.info(line)
    if as_json:
        click.echo(
            json.dumps({"run": str(folder), "results": str(folder / "results"), "report": [str(p) for p in pages]})
        )
    else:
        click.echo(str(pages[0] if pages else folder))


def work(file: RunFile, settings: Settings, memory_check: bool = True, again: str = "") -> Path:
    """Execute a run and return its folder. Raises `UserError` that says how to resume it if it was stopped.

    memory_check: refuse a run that cannot fit the memory limit before any work. again: how to resume; default: this
    process's command line.
    """
    stopper = Stopper(settings.max_time)
    stopper.install()
    try:
        return _work(file, settings, stopper, memory_check)
    except Stopped as stopped:
        resume = again or "resume with: " + shlex.join(["medlord-bench", *sys.argv[1:]])
        code = ExitCode.INTERRUPTED if stopper.interrupted else ExitCode.REQUEUE
        raise UserError(f"{stopped}; {resume}", code) from None
    finally:
        stopper.restore()


def hand_over(file: RunFile, settings: Settings) -> tuple[Path, int]:
    """Submit a run to a cluster, which goes on alone: its folder, and the number of new jobs."""
    from medlord_bench.engine.runner import submit

    planned, folder = open_run(file, settings, None)
    return folder, submit(planned, folder, settings)


def open_run(file: RunFile, settings: Settings, stopper: Stopper | None) -> tuple[Plan, Path]:
    """The plan of a run, and its folder in the store."""
    spec = resolve.resolve(file)
    from medlord_bench.engine import run_folder
    from medlord_bench.engine.planner import build
    from medlord_bench.engine.store import Store
    from medlord_bench.engine.training_hours import fitted
    from medlord_bench.engine.worker import pick_device

    planned = build(fitted(spec, settings, stopper))
    device = pick_device(settings.device)  # before anything is written
    folder = run_folder.open_run(Store(settings.store), planned, file, settings)
    run_folder.record_provenance(folder, device, planned.inventory)
    log.info("run folder: %s", folder)
    return planned, folder


def _work(file: RunFile, settings: Settings, stopper: Stopper, memory_check: bool) -> Path:
    planned, folder = open_run(file, settings, stopper)
    from medlord_bench.engine.runner import carry_out
    from medlord_bench.engine.store import Store
    from medlord_bench.engine.worker import missing, pick_device

    device = pick_device(settings.device)
    store = Store(settings.store)
    limit = limit_on(device, settings.memory_limit)
    if memory_check and limit is not None:
        from medlord_bench.engine.executors.processes import apart, can_fork
        from medlord_bench.engine.memory_check import check

        log.info("predicting the memory of the steps (--no-memory-check skips this)")
        todo = [step for step in planned.steps if missing(store, step)]
        predicted = (planned, todo, limit, settings.batch_on(planned.protocol.grid), device, folder)
        if can_fork(device):
            apart(check, *predicted)  # the executor may fork workers from this process
        else:
            check(*predicted)
    carry_out(planned, folder, settings, stopper)
    return folder


def headlines(folder: Path) -> list[str]:
    """The whole-volume scores of a run, one per line: value, interval, n, floor; then those without value, and why."""
    from medlord_bench.contracts.results import read_results

    lines = []
    not_run: dict[tuple[str, str], list[str]] = {}
    scores = read_results(folder / "results")[0].scores
    protocols = {
        metric: {one.protocol for one in scores if one.metric == metric} for metric in {s.metric for s in scores}
    }
    for score in scores:
        if score.warning:
            lines.append(f"{score.generator}  {score.metric} {score.region}: WARNING: {score.warning}")
        if score.region:
            continue
        if score.value is None:
            not_run.setdefault((score.generator, score.reason), []).append(score.metric)
            continue
        name = f"{score.generator}  {score.metric}" + (f" ({score.reference})" if score.reference else "")
        name += f" {score.protocol}" if len(protocols[score.metric]) > 1 else ""
        interval = "" if score.low is None or score.high is None else f" [{score.low:.4g}, {score.high:.4g}]"
        floor = "" if score.floor is None else f", floor {score.floor:.4g}"
        floor += "" if score.ceiling is None else f", ceiling {score.ceiling:.4g}"
        p = "" if score.p is None else f", p {score.p:.3g}"
        failed = f", {score.failed} failed" if score.failed else ""
        lines.append(f"{name}: {score.value:.4g}{interval} {score.unit}".rstrip() + f", n {score.n}{failed}{floor}{p}")
    for (generator, reason), metrics in not_run.items():
        lines.append(f"{generator}  {', '.join(dict.fromkeys(metrics))}: not run: {reason}")
    return lines


def draw(folder: Path) -> list[Path]:
    """Write the page of a run folder; `medlord-bench report` writes the other reports too."""
    from medlord_bench.results.report import FIRST, write_reports
    from medlord_bench.results.run_results import read_run

    return write_reports(read_run(folder), folder / "report", only=[FIRST])
