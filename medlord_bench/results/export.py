"""All results in one JSON file with a published schema: for other programs, and for reviewers.

`results.schema.json` beside this module is the JSON Schema of the file; it changes with `EXPORT_VERSION`.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from medlord_bench.contracts import FrozenConfig
from medlord_bench.contracts.metrics import Quantity
from medlord_bench.contracts.results import Score
from medlord_bench.results.comparisons import Comparison
from medlord_bench.results.run_results import Origin, RunResults
from medlord_bench.util.files import write_text

EXPORT_VERSION: Literal[1] = 1
FILE, SCHEMA = "results.json", "results.schema.json"


class ExportedRun(FrozenConfig):
    """A run that results come from. versions: of medlord-bench, Python and packages."""

    name: str
    started: str | None
    contestants: tuple[str, ...]
    versions: dict[str, str]


class Export(FrozenConfig):
    """`report/results.json`."""

    model_config = ConfigDict(ser_json_inf_nan="strings", title="medlord-bench results")

    schema_version: Literal[1] = EXPORT_VERSION
    dataset: str
    synthetic_reference: bool = Field(description="whether the real volumes are phantoms made by a program")
    runs: tuple[ExportedRun, ...]
    contestants: tuple[str, ...]
    controls: tuple[str, ...]
    quantities: tuple[Quantity, ...]
    protocols: dict[str, dict[str, object]]
    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]


def export(run: RunResults) -> Export:
    """The results of a run, or of several merged ones."""
    return Export(
        dataset=run.dataset,
        synthetic_reference=run.synthetic,
        runs=tuple(_run(origin) for origin in run.origins),
        contestants=tuple(run.contestants),
        controls=run.results.controls if run.results else (),
        quantities=tuple(run.quantities.values()),
        protocols=run.results.protocols if run.results else {},
        scores=tuple(run.scores),
        comparisons=run.comparisons.comparisons,
    )


def _run(origin: Origin) -> ExportedRun:
    found = origin.provenance or {}
    named = {
        "medlord_bench": found.get("medlord_bench"),
        "python": found.get("python"),
        **(found.get("packages") or {}),
    }
    return ExportedRun(
        name=origin.name,
        started=found.get("started"),
        contestants=tuple(origin.contestants),
        versions={name: str(version) for name, version in named.items() if version},
    )


def write(folder: Path, run: RunResults) -> Path:
    """Write `results.json` into `folder`, atomically; returns it."""
    path = folder / FILE
    write_text(path, export(run).model_dump_json(indent=1) + "\n")
    return path


def schema() -> str:
    """The published JSON Schema."""
    return files(__package__).joinpath(SCHEMA).read_text(encoding="utf-8")
