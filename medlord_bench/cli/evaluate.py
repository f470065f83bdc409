"""``medlord-bench evaluate``: generated volumes in a folder against real ones in another; a shorter form of `run`."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from medlord_bench.cli.options import json_option, settings_options, spec_options
from medlord_bench.cli.run import run
from medlord_bench.contracts import registry, specs, validation
from medlord_bench.contracts.reference import MetricReference, Reference, read_reference
from medlord_bench.engine import resolve, run_file
from medlord_bench.errors import UserError

log = logging.getLogger("medlord_bench")

NAME = re.compile(r"[\w-]+")
HALVES = "0.5,0,0.5"


@click.command()
@click.option("--real", type=click.Path(path_type=Path), metavar="DIR", help="Folder of real CT.")
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Statistics of real CT (`medlord-bench reference export`), instead of --real.",
)
@click.option(
    "--synthetic", multiple=True, required=True, metavar="[NAME=]DIR", help="Folder of samples; may be repeated."
)
@spec_options("metrics", "samples", "conditional", "seed", "sets")
@settings_options
@click.option("--report/--no-report", "report", default=True, help="Write the page at the end.")
@json_option
@click.pass_context
def evaluate(
    context: click.Context, /, real: Path | None, reference: Path | None, synthetic: tuple[str, ...], **options: Any
) -> None:
    """Measure generated volumes against real ones: run --dataset folder --generator files:NAME.

    The grid is that of the first generated volume, unless --set dataset.shape or dataset.patches says otherwise. The
    real patients are divided into halves, `train` and `test`, unless a manifest or --set dataset.split declares the
    model's training set.

    With --reference the protocol is the file's. What needs real cases is not run.

    \b
    medlord-bench evaluate --real DIR --synthetic DIR
    medlord-bench evaluate --real DIR --synthetic ours=DIR --synthetic theirs=DIR
    medlord-bench evaluate --reference FILE --synthetic DIR
    """
    asked = {name: options.pop(name) for name in ("metrics", "samples", "conditional", "seed", "sets")}
    context.invoke(run, **request_of(real, reference, synthetic, **asked), **options)


def request_of(real: Path | None, reference: Path | None, synthetic: Sequence[str], **asked: Any) -> dict[str, Any]:
    """The options of `run` against real volumes or a reference file. Raises `UserError` unless one of them is given."""
    if real is not None and reference is None:
        return request(real, synthetic, **asked)
    if real is None and reference is not None:
        return request_against(reference, synthetic, **asked)
    raise UserError(
        "evaluate: expected either --real DIR or --reference FILE, " + ("not both" if real else "got neither")
    )


def request(
    real: Path,
    synthetic: Sequence[str],
    metrics: Sequence[str] = (),
    samples: int | None = None,
    conditional: bool | None = None,
    seed: int | None = None,
    sets: Sequence[str] = (),
) -> dict[str, Any]:
    """The options of `run` that measure the volumes of `synthetic` ([NAME=]DIR each) against those of `real`.

    Raises `UserError` for a folder without volumes, two of one name, or generated volumes below `real`.
    """
    folders = named(synthetic)
    sets = list(sets)
    sets += _folder_settings(folders)
    given = run_file.parse_sets(sets)
    if not {"dataset.exclude", "dataset.manifest"} & set(given):
        check_apart(real, folders.values())
    generators = tuple(f"files:{name}" for name in folders)
    made = [specs.make("generators", resolve.contestant(text, "folder", given)) for text in generators]
    declared = any(path.startswith("dataset.split") for path in given)
    if not declared:
        sets.append(f"dataset.split.fractions={HALVES}")  # a manifest's column, and folders of splits, take precedence
    if not any(path == "dataset.shape" or path.startswith("dataset.patches") for path in given):
        sets.append(_shape_of(made[0]))
    data = validation.nested(run_file.parse_sets(sets), "dataset") | {"data_root": str(real)}
    protocol = specs.dataset(specs.plugin_spec("datasets", "folder", data)).protocol
    if not declared and protocol.split.startswith("by patient"):
        log.info(
            "real patients are divided into halves, train and test, since the model's training set is not declared "
            "(declare it with a manifest's column 'split', or --set dataset.split.file)"
        )
    if samples is None:
        samples = max(one.available(protocol) for one in made)
    return {
        "generators": generators,
        "dataset": "folder",
        "data_root": real,
        "metrics": metrics,
        "samples": samples,
        "conditional": conditional,
        "seed": seed,
        "sets": tuple(sets),
    }


def request_against(
    file: Path,
    synthetic: Sequence[str],
    metrics: Sequence[str] = (),
    samples: int | None = None,
    conditional: bool | None = None,
    seed: int | None = None,
    sets: Sequence[str] = (),
) -> dict[str, Any]:
    """The options of `run` that measure the volumes of `synthetic` against a reference file, by its protocol.

    Raises `UserError` for a file that cannot be read, a setting that the file fixes, and volumes of another grid.
    """
    reference = read_reference(file)
    given = run_file.parse_sets(sets)
    fixed = [path for path in given if path.startswith("dataset.")]
    if fixed or conditional:
        option = f"--set {fixed[0]}" if fixed else "--conditional"
        raise UserError(
            f"{option}: the protocol of --reference {file} is fixed, and it has no cases; remove that option"
        )
    stored = [one for one in reference.meta.metrics if one.name in metrics or (not metrics and _usable(one))]
    folders = named(synthetic)
    own = [f"{one.name}.{field}={json.dumps(value)}" for one in stored for field, value in one.config.items()]
    own += [*sets, *_folder_settings(folders)]
    given = run_file.parse_sets(own)
    made = {name: specs.make("generators", resolve.contestant(f"files:{name}", "", given)) for name in folders}
    for name, one in made.items():
        if not {"files.fit", f"files:{name}.fit"} & set(given):
            _check_grid(one, name, reference)
    if samples is None:
        samples = max(one.available(reference.meta.data) for one in made.values())
    return {
        "generators": tuple(f"files:{name}" for name in folders),
        "dataset": "reference",
        "metrics": tuple(metrics) or tuple(one.name for one in stored),
        "samples": samples,
        "conditional": False,
        "seed": seed,
        "sets": (*own, f"dataset.file={json.dumps(str(file.absolute()))}"),
    }


def _usable(one: MetricReference) -> bool:
    """Whether a metric of a file is measured by default: one that needs cases and is not installed here is left out."""
    return one.patients is not None or one.name.partition(":")[0] in registry.loadable("metrics")


def _check_grid(files: Any, name: str, reference: Reference) -> None:
    """Raise `UserError` if the first volume is on another grid than the reference's."""
    found, wanted = files.grid_shape(), reference.meta.data.grid.shape
    if found != wanted:
        here, there = ("x".join(map(str, shape)) for shape in (found, wanted))
        raise UserError(
            f"{files.rows[0].path}: its grid is {here} (along R, A, S), expected {there}, the field data.grid.shape of "
            f"{reference.path}: make samples of that grid, or give --set files:{name}.fit=crop-pad or resize"
        )


def named(synthetic: Iterable[str]) -> dict[str, Path]:
    """Name and folder of each ``[NAME=]DIR``; the default name is the folder's.

    Raises `UserError` if two have the same name, or a name cannot be part of ``files:NAME``.
    """
    found: dict[str, Path] = {}
    for text in synthetic:
        name, equals, place = text.partition("=")
        if not equals or Path(text).is_dir():
            name, place = re.sub(r"[^\w-]+", "-", Path(text).absolute().name).strip("-") or "synthetic", text
        if not NAME.fullmatch(name):
            raise UserError(
                f"--synthetic {text}: {name!r} is not a valid name; expected letters, digits, '-' and '_', as in a=DIR"
            )
        if name in found:
            raise UserError(
                f"--synthetic {text}: {name!r} is already {found[name]}; expected different names: NAME={place}"
            )
        found[name] = Path(place).expanduser()
    return found


def _folder_settings(folders: Mapping[str, Path]) -> list[str]:
    """The folders of the generators `files:NAME`, as settings."""
    return [f"files:{name}.folder={json.dumps(str(folder.absolute()))}" for name, folder in folders.items()]


def check_apart(real: Path, synthetic: Iterable[Path]) -> None:
    """Raise `UserError` if generated volumes are below the real folder, and would be treated as real ones."""
    for folder in synthetic:
        if folder.resolve().is_relative_to(real.resolve()):
            raise UserError(
                f"--synthetic {folder}: is inside --real {real}, so its volumes would be treated as real ones; "
                "expected separate folders: move one, or exclude it with --set dataset.exclude='NAME/*'"
            )


def _shape_of(files: Any) -> str:
    """The grid of the first generated volume, as a setting of the data set."""
    shape = files.grid_shape()
    if len(shape) != 3:
        raise UserError(
            f"{files.rows[0].path}: has shape {shape}; expected a 3-D volume to define the grid: save it without its "
            "channel axis, or give --set dataset.shape"
        )
    text = ",".join(map(str, shape))
    log.info(
        "grid %s, from %s; real images are centre-cropped or padded to it "
        "(alternatives: --set dataset.fit=resize, or --set dataset.patches.shape=%s for patches)",
        *("x".join(map(str, shape)), files.rows[0].path, text),
    )
    return f"dataset.shape={text}"
