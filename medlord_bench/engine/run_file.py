"""The request of a run: a YAML run file, or command-line options and ``--set a.b=c`` instead."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field

from medlord_bench.contracts import FrozenConfig, registry
from medlord_bench.contracts.validation import validate
from medlord_bench.errors import UserError
from medlord_bench.util.documents import parse_yaml, read_yaml


def default_metrics() -> tuple[str, ...]:
    """The default metrics of a run, as declared by the metrics, in their order."""
    ranks = {name: getattr(metric, "default", None) for name, metric in registry.loadable("metrics").items()}
    return tuple(sorted((name for name in ranks if ranks[name] is not None), key=lambda name: (ranks[name], name)))


class RunFile(FrozenConfig):
    """A YAML run file. Every field can be given on the command line instead; the command line overrides the file."""

    generators: tuple[str, ...] = ()
    dataset: str = ""
    metrics: tuple[str, ...] = Field(
        default_factory=default_metrics, description="name[:variant], e.g. fid:maisi-compat"
    )
    samples: int | None = Field(None, ge=0, le=1_000_000)
    conditional: bool = True
    resampled: bool = Field(True, description="add rows of real volumes resampled to each generator's own grid")
    seed: int = 0
    train_steps: int | None = Field(None, ge=0, description="optimiser steps of each contestant, in all its stages")
    train_hours: float | None = Field(
        None, gt=0, description="hours that each contestant may train, all stages together"
    )
    weights: Path | None = None
    set: dict[str, Any] = Field(default_factory=dict, description="dotted path -> value, as with --set")


def read_run_file(path: Path) -> RunFile:
    """Read and validate a YAML run file."""
    return validate(RunFile, read_yaml(path, "a YAML run file"), str(path))


def parse_sets(options: Iterable[str]) -> dict[str, Any]:
    """``["dataset.n_test=8", "dataset.patches.shape=64,64,64"]`` to {path: value}; values are YAML, commas a list."""
    found: dict[str, Any] = {}
    for option in options:
        path, equals, text = option.partition("=")
        if not equals or not path or not all(part.strip() for part in path.split(".")):
            raise UserError(f"--set {option}: expected PATH=VALUE, e.g. --set generator.diffusion.steps=100")
        several = "," in text and not text.lstrip().startswith(("[", "{", '"'))
        found[path.strip()] = parse_yaml(f"[{text}]" if several else text, f"--set {option[:200]}")
    return found
