"""``medlord-bench memory``: the predicted memory of every phase of a generator's work on a card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from medlord_bench.cli.options import json_option, run_file_of, spec_options
from medlord_bench.contracts import DataProtocol, Grid, specs
from medlord_bench.contracts.regions import CARDIAC
from medlord_bench.engine import resolve, run_file
from medlord_bench.errors import ExitCode, UserError
from medlord_bench.memory.budget import ALLOCATED_FACTOR, CONTEXT_GIB, parse_gib, usable_gib

if TYPE_CHECKING:
    from medlord_bench.engine.memory_forecast import Forecast

RULE = f"needs = {ALLOCATED_FACTOR} x allocated + workspace + {CONTEXT_GIB} GiB for the context"
PAPER_REGIONS = CARDIAC[:6]  # the regions that condition the paper's ControlNet


@click.command()
@spec_options("generators", "dataset", "data_root", "sets")
@click.option("--grid", metavar="X,Y,Z", help="Voxels; default: the data set's, or 512,512,256 with six regions.")
@click.option("--budget", default="24", show_default=True, metavar="SIZE", help="The card's size, e.g. 24 or 16GiB.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Samples drawn at once.")
@click.option("--stage", "stages", multiple=True, metavar="NAME", help="Only this one; may be repeated.")
@json_option
def memory(grid: str | None, budget: str, batch: int, stages: Sequence[str], as_json: bool, **options: Any) -> int:
    """Predict the memory peak of training, sampling and reconstructing; needs no GPU, no weights and no data.

    \b
    medlord-bench memory --generator medlord@24gb
    medlord-bench memory --generator medlord@paper-pccta --budget 48
    medlord-bench memory --generator medlord --dataset luna16 --data-root DIR --json

    Exit code 0: everything fits. Exit code 4: a phase does not fit; the table names the cheapest change that does.
    """
    file = run_file_of(options)
    if not file.generators:
        raise UserError("no generator: give --generator NAME (see: medlord-bench list generators)")
    size = parse_gib(budget, "--budget")
    data = _protocol(file, grid)
    contestants = [resolve.contestant(text, file.dataset, file.set) for text in file.generators]
    from medlord_bench.engine.memory_forecast import forecast

    found = []
    for contestant in contestants:
        for one in forecast(contestant, data, size, batch, stages):
            found.append(one)
            if not as_json:
                _print(one, first=[f.contestant for f in found].count(one.contestant) == 1, data=data)
    if as_json:
        click.echo(json.dumps(_answer(found, data, size, batch)))
    else:
        click.echo(f"\n{RULE}. {_basis()}")
    return ExitCode.OK if all(one.fits for one in found) else ExitCode.MEMORY


def _protocol(file: run_file.RunFile, grid: str | None) -> DataProtocol:
    """The data set's protocol, or one of the paper's size; `grid` overrides the grid of either."""
    if file.dataset:
        data: DataProtocol = specs.dataset(resolve.dataset_spec(file)).protocol
    else:
        data = DataProtocol(
            name="any",
            grid=Grid(shape=(512, 512, 256)),
            fit="crop-pad",
            split="",
            split_sha256="",
            counts={"train": 1, "val": 1, "test": 1},
            masks="dataset",
            condition_regions=PAPER_REGIONS,
        )
    if grid is None:
        return data
    sides = grid.lower().replace("x", ",").split(",")
    if len(sides) != 3 or not all(side.strip().isdigit() and int(side) for side in sides):
        raise UserError(f"--grid {grid}: expected three numbers of voxels, e.g. 512,512,256")
    x, y, z = map(int, sides)
    return data.model_copy(update={"grid": data.grid.model_copy(update={"shape": (x, y, z)})})


def _basis() -> str:
    import torch

    return f"Computed from shapes under PyTorch {torch.__version__} with CUDA's autocast; not measured on a card."


def _print(one: Forecast, first: bool, data: DataProtocol) -> None:
    if first:
        shape = "x".join(map(str, data.grid.shape))
        given = "" if one.budget is None else f"; a {one.budget:g} GiB card gives {usable_gib(one.budget):g}"
        click.echo(f"{one.contestant} on {shape}, {len(data.condition_regions)} condition regions{given}\n")
        click.echo(f"{'':18} {'allocated':>10} {'workspace':>10} {'needs':>7}  GiB")
    if one.need is None:
        click.echo(f"{one.name:18} not predictable: {one.reason}")
        return
    verdict = "" if one.budget is None else "fits" if one.fits else "DOES NOT FIT"
    click.echo(
        f"{one.name:18} {one.need.allocated:10.2f} {one.need.workspace:10.2f} {one.need.total:7.2f}  {verdict}".rstrip()
    )
    for made in one.need.largest:
        shape, module = "x".join(map(str, made.shape)), made.module or "outside any layer"
        click.echo(f"    {made.bytes / 2**30:6.2f}  {shape} {made.dtype}, {made.by} in {module}")
    if not one.fits:
        click.echo(f"    -> {one.advice or 'no known change makes it fit: take a smaller grid or a larger card'}")


def _answer(found: Sequence[Forecast], data: DataProtocol, budget: float | None, batch: int) -> dict[str, Any]:
    return {
        "rule": RULE,
        "basis": _basis(),
        "grid": list(data.grid.shape),
        "condition_regions": len(data.condition_regions),
        "batch": batch,
        "budget_gib": budget,
        "usable_gib": None if budget is None else usable_gib(budget),
        "stages": [_row(one) for one in found],
    }


def _row(one: Forecast) -> dict[str, Any]:
    need = None if one.need is None else asdict(one.need) | {"total": one.need.total}
    advice = None
    if one.advice is not None:
        advice = {"sets": dict(one.advice.sets), "cost": one.advice.cost, "total": one.advice.need.total}
    return {
        "contestant": one.contestant,
        "stage": one.name,
        "during": one.during,
        "need_gib": need,
        "reason": one.reason,
        "fits": one.fits if one.need is not None else None,
        "advice": advice,
    }
