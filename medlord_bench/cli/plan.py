"""``medlord-bench plan``: the steps of a run."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
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
from medlord_bench.errors import MemoryBudgetError
from medlord_bench.memory.budget import DEFAULT_GIB

if TYPE_CHECKING:
    from medlord_bench.engine.memory_forecast import Forecast
    from medlord_bench.engine.plan import Plan, Step
    from medlord_bench.engine.run_file import RunFile
    from medlord_bench.engine.training_hours import Hours
    from medlord_bench.engine.worker import Settings


log = logging.getLogger("medlord_bench")


@click.command()
@spec_options()
@settings_options
@memory_check_option
@click.option(
    "--sbatch", is_flag=True, help="Print a script that submits the run to Slurm, instead: bash it on a login node."
)
@click.option("--probe", is_flag=True, help="Measure how fast this machine trains arms (downstream), and print hours.")
@json_option
def plan(memory_check: bool, sbatch: bool, probe: bool, as_json: bool, **options: Any) -> None:
    """Show the steps of `run` with the same options, which are already done, and the memory and disk they need.

    Memory is compared with a card of 24 GiB, or with --memory-limit. Exit code 4 if a step cannot fit.
    """
    file = run_file_of(options)
    if sbatch:
        click.echo(_scripts(file, settings_of({**options, "executor": options["executor"] or "slurm"})), nl=False)
        return
    settings = settings_of(options)
    from medlord_bench.engine import training_hours
    from medlord_bench.engine.planner import build
    from medlord_bench.engine.store import Store
    from medlord_bench.engine.worker import missing, pick_device
    from medlord_bench.util.stopping import Stopper

    stopper = Stopper(settings.max_time) if probe else None
    planned = build(training_hours.fitted(resolve.resolve(file), settings, stopper))
    store = Store(settings.store)
    if stopper is not None:
        training_hours.probe(planned, settings, stopper)
    hours = {one.step: one for one in training_hours.hours(planned, store, pick_device(settings.device))}
    x, y, z = planned.protocol.grid.shape
    on_card = settings.memory_limit == "auto"  # a plan for a GPU may be made on a machine without one
    budget = DEFAULT_GIB if settings.memory_limit == "auto" else settings.memory_limit
    foreseen: dict[str, Forecast] = {}
    if memory_check and budget is not None:
        from medlord_bench.engine.memory_check import foresee

        todo_steps = [step for step in planned.steps if missing(store, step)]
        device = "cuda" if on_card else pick_device(settings.device)
        foreseen = foresee(planned, todo_steps, budget, settings.batch_on(planned.protocol.grid), device)
    rows = [_row(step, len(missing(store, step)), x * y * z, foreseen, hours) for step in planned.steps]
    disk = _disk(planned, rows, settings)
    if as_json:
        click.echo(json.dumps({"protocol": planned.protocol.id(), "steps": rows, "disk": disk}))
    else:
        click.echo(f"protocol {planned.protocol.id()}, grid {x}x{y}x{z}, store {settings.store}")
        for row in rows:
            state = "there" if row["to_do"] == 0 else f"{row['to_do']} of {row['of']} to do"
            click.echo(f"  {state:>18}  {row['step']}  {_needs(row)}".rstrip())
        stays = "" if settings.keep == "all" else f", of which {disk['stays_gib']} GiB stay (--keep {settings.keep})"
        click.echo(
            f"disk: about {disk['to_write_gib']} GiB to write besides weights{stays}; {disk['free_gib']} GiB free"
        )
    if disk["to_write_gib"] > disk["free_gib"]:
        log.warning("disk: %s GiB to write, %s GiB free at %s", disk["to_write_gib"], disk["free_gib"], settings.store)
    for id, one in foreseen.items():
        if not one.fits:
            from medlord_bench.engine.memory_check import refusal

            raise MemoryBudgetError(f"step {id}: {refusal(one)}")


def _row(
    step: Step, todo: int, voxels: int, foreseen: Mapping[str, Forecast], hours: Mapping[str, Hours]
) -> dict[str, Any]:
    """What is to do in a step, and what it needs."""
    from medlord_bench.engine.memory_check import refusal
    from medlord_bench.engine.steps.kinds import KINDS

    kind = KINDS[step.kind]
    per_item = kind.bytes_per_voxel if todo else None
    disk = None if per_item is None else round(todo * per_item * voxels / 2**30, 3)
    row: dict[str, Any] = {"step": step.id, "key": step.key, "to_do": todo, "of": len(step.items), "disk_gib": disk}
    if step.id in foreseen:
        one = foreseen[step.id]
        row["memory_gib"] = None if one.need is None else round(one.need.total, 2)
        row["memory"] = f"not predictable: {one.reason}" if one.need is None else "fits" if one.fits else refusal(one)
    if step.id in hours:
        row["hours"] = round(hours[step.id].hours, 4)
        row["training"] = _training(hours[step.id])
    if (count := kind.volumes_to_sample(step)) is not None:
        row["volumes_to_sample"] = count
    return row


def _disk(planned: Plan, rows: Sequence[Mapping[str, Any]], settings: Settings) -> dict[str, float]:
    """GiB that the steps to do write, that stay once the run is finished, and that are free where the store is."""
    from medlord_bench.engine.cleaning import DROPS

    needed = {row["step"]: row["disk_gib"] or 0.0 for row in rows}
    stays = sum(needed[step.id] for step in planned.steps if step.kind not in DROPS[settings.keep])
    place = next(path for path in (settings.store, *settings.store.parents) if path.exists())
    free = shutil.disk_usage(place).free / 2**30
    return {"to_write_gib": round(sum(needed.values()), 3), "stays_gib": round(stays, 3), "free_gib": round(free, 1)}


def _scripts(file: RunFile, settings: Settings) -> str:
    """The script of all jobs of a run that are to do. It writes the run folder, which the jobs read."""
    from medlord_bench.cli.run import open_run
    from medlord_bench.engine.executors import sbatch, slurm

    planned, folder = open_run(file, settings, None)
    return sbatch.printed(slurm.jobs_of(planned, folder, settings, {}, {}, finish=True))


def _training(one: Hours) -> str:
    """The arms of a step as text."""
    there = f", {one.trained} trained already" if one.trained else ""
    each = f"{one.arms} arm{'s' * (one.arms != 1)} x {one.seeds} seed{'s' * (one.seeds != 1)}"
    return f"{each}{there}: about {one.hours:.2g} hours of training (probe on {one.on})"


def _needs(row: dict[str, Any]) -> str:
    """The requirements of a step as text."""
    needs = [row["training"]] if "training" in row else []
    if "volumes_to_sample" in row:
        needs.append(f"samples {row['volumes_to_sample']} volumes for selection")
    if row["disk_gib"] is not None:
        needs.append(f"about {row['disk_gib']} GiB of disk")
    if row.get("memory_gib") is not None:
        needs.append(f"about {row['memory_gib']} GiB of memory")
    elif "memory" in row:
        needs.append(f"memory {row['memory']}")
    return ", ".join(needs)
