"""Options that several verbs share, and their conversion to a `RunFile` and `Settings`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from medlord_bench.contracts import registry, validation
from medlord_bench.engine import run_file
from medlord_bench.engine.run_file import RunFile
from medlord_bench.engine.worker import Settings
from medlord_bench.errors import UserError
from medlord_bench.memory.budget import parse_gib

Command = TypeVar("Command", bound=Callable[..., Any])
DEFAULT_STORE = "medlord-bench-store"
SLURM_TASKS = 8  # jobs into which each step is divided


class _StorePath(click.Path):
    """An absolute path of a folder. Empty text is refused, and so is a relative one where the current folder is gone."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Path:
        if not str(value).strip():
            self.fail("is empty; expected a folder", parameter, context)
        try:
            return Path(str(super().convert(Path(value).resolve(), parameter, context)))
        except FileNotFoundError:
            self.fail(f"{value}: the current folder was removed; change to another one", parameter, context)


store_option = click.option(
    "--store",
    type=_StorePath(file_okay=False, path_type=Path),
    default=DEFAULT_STORE,
    show_default=True,
    envvar="MEDLORD_BENCH_STORE",
    help="Folder of all computed results.",
)
KEEPS = ("all", "volumes", "features", "scores")  # of `engine.cleaning`, which takes long to import
keep_option = click.option(
    "--keep",
    type=click.Choice(KEEPS),
    default="all",
    show_default=True,
    help="What stays of a finished run: volumes: without prepared images and checkpoints; features: nor volumes; scores: nor features.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
memory_check_option = click.option(
    "--memory-check/--no-memory-check",
    default=True,
    help="First predict the memory of each step, and refuse (exit code 4) a run that cannot fit the limit.",
)


SPEC_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "run_file": click.argument("run_file", required=False, type=click.Path(path_type=Path), metavar="[RUN.YAML]"),
    "generators": click.option(
        "--generator", "generators", multiple=True, metavar="NAME[:VARIANT][@PRESET]", help="May be repeated."
    ),
    "dataset": click.option("--dataset", metavar="NAME", help="phantom, folder, pccta, luna16, ..."),
    "data_root": click.option(
        "--data-root",
        type=click.Path(path_type=Path),
        help="Folder of the data set's images; default: MEDLORD_BENCH_DATA_ROOT.",
    ),
    "metrics": click.option(
        "--metric", "metrics", multiple=True, metavar="NAME", help="Default: all that need no download."
    ),
    "samples": click.option(
        "--samples", type=int, metavar="N", help="Unconditional samples; default: one per test case."
    ),
    "conditional": click.option(
        "--conditional/--no-conditional", default=None, help="Also draw samples for the masks of the test split."
    ),
    "resampled": click.option(
        "--resampled/--no-resampled",
        default=None,
        help="Add a row of real volumes resampled to each generator's own grid and back.",
    ),
    "train_steps": click.option(
        "--train-steps",
        type=click.IntRange(min=0),
        metavar="N",
        help="Total training steps of each contestant, divided among its stages in the preset's proportions.",
    ),
    "train_hours": click.option(
        "--train-hours",
        type=click.FloatRange(min=0, min_open=True),
        metavar="H",
        help="End each contestant's training after H hours in total, divided among its stages like its steps.",
    ),
    "seed": click.option("--seed", type=int, help="Random seed; default 0."),
    "weights": click.option(
        "--weights", type=click.Path(path_type=Path), help="Load these weights instead of training."
    ),
    "sets": click.option(
        "--set", "sets", multiple=True, metavar="PATH=VALUE", help="E.g. --set generator.diffusion.steps=100"
    ),
}


def spec_options(*names: str) -> Callable[[Command], Command]:
    """The options that decide the results, shared by all verbs that measure. names: the wanted ones; none for all."""

    def decorate(command: Command) -> Command:
        for name in reversed(names or tuple(SPEC_OPTIONS)):
            command = SPEC_OPTIONS[name](command)
        return command

    return decorate


def settings_options(command: Command) -> Command:
    """Options of place and speed, which change no result."""
    for option in reversed(
        (
            store_option,
            click.option("--device", default="auto", show_default=True, envvar="MEDLORD_BENCH_DEVICE"),
            click.option(
                "--batch", type=int, help="Volumes sampled at once; default: 4 of at most 2^18 voxels, else 1."
            ),
            click.option("--threads", type=int, envvar="MEDLORD_BENCH_THREADS", help="CPU threads per worker."),
            click.option(
                "--gpus", type=int, default=1, show_default=True, help="GPUs of each training stage (docs/cluster.md)."
            ),
            click.option(
                "--executor",
                default=None,
                help="inline; local (one process per GPU, or --workers); slurm (jobs of a cluster).",
            ),
            click.option(
                "--workers", type=int, help="Processes of local, default: one per GPU; jobs of each step of slurm, 8."
            ),
            click.option(
                "--slurm",
                multiple=True,
                metavar="FIELD=VALUE",
                help="E.g. partition=gpu, gres=gpu:1, time=04:00:00, scores.gres= (docs/cluster.md); or a YAML file of such fields.",
            ),
            click.option(
                "--offline", is_flag=True, envvar="MEDLORD_BENCH_OFFLINE", help="Make no network call at all."
            ),
            click.option(
                "--weights-dir",
                type=click.Path(path_type=Path),
                envvar="MEDLORD_BENCH_WEIGHTS",
                help="Offline folder of pretrained weights.",
            ),
            keep_option,
            click.option("--max-time", type=float, metavar="SECONDS", help="Save and stop (exit 75) after this time."),
            click.option(
                "--memory-limit",
                default="auto",
                show_default=True,
                metavar="SIZE",
                envvar="MEDLORD_BENCH_MEMORY_LIMIT",
                help="Memory limit per process, e.g. 24 or 3.5GiB (exit 4 above it); auto: 24 GiB on a GPU; or none.",
            ),
        )
    ):
        command = option(command)
    return command


def run_file_of(options: dict[str, Any]) -> RunFile:
    """The run file, overridden by the command line. Removes its own options from `options`."""
    given = {name: options.pop(name, () if name == "sets" else None) for name in SPEC_OPTIONS}
    file = run_file.read_run_file(given["run_file"]) if given["run_file"] else RunFile()
    over: dict[str, Any] = {
        name: given[name]
        for name in (
            "generators",
            "dataset",
            "metrics",
            "samples",
            "conditional",
            "resampled",
            "train_steps",
            "train_hours",
            "seed",
            "weights",
        )
        if given[name] is not None and given[name] != ()
    }
    if over.get("weights") is not None:
        over["weights"] = over["weights"].resolve()
    sets = file.set | run_file.parse_sets(given["sets"])
    if given["data_root"] is not None:
        sets["dataset.data_root"] = str(given["data_root"].resolve())
    merged = file.model_dump() | over | {"set": sets}
    return validation.validate(RunFile, merged, "command line")


def settings_of(options: dict[str, Any]) -> Settings:
    """`Settings` from the options of `settings_options`."""
    workers, executor, slurm = options.pop("workers"), options.pop("executor"), options.pop("slurm")
    if slurm and executor not in (None, "slurm"):
        raise UserError(f"--slurm: executor {executor} submits no jobs; expected --executor slurm")
    executor = "slurm" if slurm else executor
    if workers is None:
        workers = _gpu_count() if executor == "local" else SLURM_TASKS if executor == "slurm" else 1
    executor = executor or ("local" if workers > 1 else "inline")
    registry.load("executors", executor)
    fields = {
        name: options.pop(name)
        for name in ("device", "batch", "threads", "offline", "weights_dir", "max_time", "keep", "gpus")
    }
    limit = options.pop("memory_limit")
    if executor == "slurm":
        from medlord_bench.engine.executors import slurm_settings
        from medlord_bench.engine.steps.kinds import KINDS

        fields["slurm"] = slurm_settings.parse(slurm, KINDS)
    fields["memory_limit"] = limit if limit == "auto" else parse_gib(limit)
    store = options.pop("store")
    given = {"store": store, "workers": workers, "executor": executor, **fields}
    settings = validation.validate(Settings, given, "command line")
    settings.export()
    return settings


def _gpu_count() -> int:
    import torch

    return max(1, torch.cuda.device_count())
