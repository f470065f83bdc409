"""What a run asks of Slurm: typed settings, for all steps and for some kinds of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from medlord_bench.contracts import FrozenConfig
from medlord_bench.contracts.validation import merged, validate
from medlord_bench.errors import UserError
from medlord_bench.util.documents import parse_yaml, read_yaml

TIME = re.compile(r"\d+|(\d+-)?\d+(:\d\d){1,2}|\d+-\d+")
WARNING_SECONDS = 120  # before the time limit: the signal, and time to save


class Resources(FrozenConfig):
    """What each job of a step asks for; None: the cluster's default. Names and values are those of sbatch."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gres: str | None = Field(None, description="generic resources of a job, e.g. gpu:1; empty: none")
    cpus: int | None = Field(None, ge=1, description="CPUs of a job; also its threads unless --threads is given")
    memory: str | None = Field(None, description="memory of a job, e.g. 32G")
    time: str | None = Field(
        None, description="time limit, e.g. 04:00:00 or 1-12:00:00; work is saved and requeued at it"
    )
    constraint: str | None = None
    options: tuple[str, ...] = Field((), description="further options of sbatch, e.g. --exclusive")

    @field_validator("partition", "account", "qos", "gres", "memory", "constraint", "options")
    @classmethod
    def _one_line(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for text in (value,) if isinstance(value, str) else value or ():
            if not text.isprintable() or any(char in text for char in " '\"`$\\"):
                raise ValueError(
                    f"{text!r} has spaces, quotes or control characters; expected one word as sbatch takes it"
                )
        return value

    @field_validator("time", mode="before")
    @classmethod
    def _time(cls, value: object) -> object:
        if value is not None and not TIME.fullmatch(str(value)):
            raise ValueError("expected minutes, HH:MM:SS or D-HH:MM:SS (in quotes in YAML)")
        return None if value is None else str(value)


class SlurmSettings(Resources):
    """The settings of `--executor slurm`."""

    command: str | None = Field(
        None,
        description="what starts medlord-bench on a node, e.g. 'apptainer exec --nv bench.sif medlord-bench'; unset: this Python",
    )
    setup: tuple[str, ...] = Field((), description="shell lines before it, e.g. 'module load cuda'")
    at_once: int | None = Field(None, ge=1, description="jobs of one step that may run at the same time")
    steps: dict[str, Resources] = Field(
        default_factory=dict, description="kind of step -> what its jobs ask for instead, e.g. scores: {gres: ''}"
    )

    def of(self, kind: str) -> Resources:
        """What the jobs of a kind of step ask for."""
        own = {name: getattr(self, name) for name in Resources.model_fields}
        over = self.steps.get(kind)
        return Resources.model_validate(own | ({} if over is None else over.model_dump(exclude_unset=True)))


def parse(options: Iterable[str], kinds: Iterable[str]) -> SlurmSettings:
    """`--slurm` options: files of YAML, and ``FIELD=VALUE`` or ``KIND.FIELD=VALUE``; the later overrides. kinds: of steps."""
    found: dict[str, Any] = {}
    names = set(kinds)
    for option in options:
        path, equals, text = option.partition("=")
        if not equals:
            found = merged(found, read_yaml(Path(option), "--slurm: a YAML file, or FIELD=VALUE"))
            continue
        kind, dot, field = path.partition(".")
        text_fields = {"setup", "options"}
        value: Any = parse_yaml(text, f"--slurm {option}") if path in ("cpus", "at_once") or field == "cpus" else text
        value = (text,) if (field if dot else path) in text_fields else value
        found = merged(found, {"steps": {kind: {field: value}}} if dot else {path: value})
    settings = validate(SlurmSettings, found, "--slurm")
    unknown = sorted(set(settings.steps) - names)
    if unknown:
        raise UserError(f"--slurm {unknown[0]}: no kind of step; expected one of {', '.join(sorted(names))}")
    return settings
