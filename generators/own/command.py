"""`command`: a user's own program, run once per volume in its own environment."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from medlord_bench.contracts import (
    Capability,
    Cohort,
    DataProtocol,
    Dependencies,
    Failure,
    Grid,
    NotInKey,
    Purpose,
    Request,
    Run,
    Stage,
    Volume,
)
from medlord_bench.errors import MissingError, StepError, UserError
from medlord_bench.util import seeds

from .mapping import MappingConfig, check_window
from .template import GRID, files_in, words_of

if TYPE_CHECKING:
    from .calls import Calls

FIELD: Mapping[Purpose, str] = {
    "sample": "command",
    "sample-conditional": "conditional_command",
    "reconstruct": "reconstruct_command",
}
CAPABILITY: Mapping[Purpose, Capability] = {
    "sample": "unconditional",
    "sample-conditional": "conditional",
    "reconstruct": "reconstructs",
}
KNOWN: Mapping[str, tuple[str, ...]] = {
    "command": ("seed", "index", "out", *GRID),
    "conditional_command": ("seed", "index", "out", "mask", *GRID),
    "reconstruct_command": ("image", "out", *GRID),
}
NEEDED: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "command": (("out",), ("seed", "index")),
    "conditional_command": (("out",), ("mask",)),
    "reconstruct_command": (("out",), ("image",)),
}
MAX_FIRST_FAILURES = 3  # failures in a row from the first volume on, which are attributed to the command itself


class CommandConfig(MappingConfig):
    """The user's program, and its output."""

    command: str | None = Field(
        None, description='e.g. "/path/to/venv/bin/python sample.py --seed {seed} --out {out}"; no shell'
    )
    conditional_command: str | None = Field(None, description="the same with {mask}: a NIfTI label map, uint8")
    reconstruct_command: str | None = Field(None, description="the same with {image}: a NIfTI image in HU, int16")
    revision: str = Field("", description="version of the program and its weights; a change draws new samples")
    output: Literal[".nii.gz", ".nii", ".npy", ".npz"] = Field(".nii.gz", description="suffix of {out}")
    cwd: Annotated[Path | None, NotInKey("the key has the content of the files that the command names")] = Field(
        None, description="working folder; unset: where the bench was started"
    )
    environment: Annotated[tuple[str, ...], NotInKey("names; `revision` distinguishes versions of a program")] = Field(
        (), description="environment variables passed on besides PATH, HOME and a few"
    )
    timeout_s: Annotated[float, NotInKey("decides whether there is a volume, not its content")] = Field(
        1800.0, gt=0, description="seconds after which one volume counts as failed"
    )

    @field_validator("command", "conditional_command", "reconstruct_command")
    @classmethod
    def _placeholders(cls, value: str | None, info: Any) -> str | None:
        if value is not None:
            words_of(value, KNOWN[info.field_name], NEEDED[info.field_name])
        return value

    @field_validator("environment", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("cwd")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()


class Command:
    """A program of yours, run once for each volume: with a seed, a mask or an image in, a volume file out.

    The variant is a name for it: `--generator command:mine --set 'command:mine.command=...'`.
    """

    Config: ClassVar[type[CommandConfig]] = CommandConfig
    version: ClassVar[int] = 1
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    free_variants: ClassVar[bool] = True

    def __init__(self, config: CommandConfig) -> None:
        self.config = config
        given = [purpose for purpose in FIELD if self._text(purpose) is not None]
        self.capabilities: frozenset[Capability] = frozenset(CAPABILITY[purpose] for purpose in given)

    def _text(self, purpose: Purpose) -> str | None:
        text: str | None = getattr(self.config, FIELD[purpose])
        return text

    def _words(self, purpose: Purpose) -> list[str]:
        return shlex.split(self._text(purpose) or "")

    @property
    def folder(self) -> Path:
        return self.config.cwd or Path.cwd()

    def check(self, data: DataProtocol) -> None:
        """Raises `UserError` if no command is given or its window differs, `MissingError` without the program."""
        if not self.capabilities:
            raise UserError(
                "generator command: no command given; expected "
                "--set 'command:NAME.command=PROGRAM --seed {seed} --out {out}'"
            )
        check_window(self.config, data, "generator command")
        if not self.folder.is_dir():
            raise MissingError(f"{self.folder}: not a folder; expected the working folder of the command: set cwd")
        for purpose in FIELD:
            program = (self._words(purpose) or [""])[0]
            if program and shutil.which(self.folder / program if os.sep in program else program) is None:
                raise MissingError(
                    f"{program}: no such program in {self.folder if os.sep in program else 'PATH'}; "
                    f"expected the first word of {FIELD[purpose]} to be one: give its whole path"
                )

    def available(self, data: DataProtocol) -> int | None:
        """Any number."""
        return None

    def stages(self) -> Sequence[Stage]:
        """None: the program loads its own weights."""
        return ()

    def dependencies(self, purpose: Purpose) -> Dependencies:
        """The command, its declared revision and mapping, and the content of the files that it names."""
        from medlord_bench.volumes.fingerprints import Found, fingerprint

        files = files_in(self._words(purpose), self.folder)
        cases = fingerprint((Found(path.name, "", path) for path in files), {})
        fields = (FIELD[purpose], "revision", "output", *MappingConfig.model_fields)
        return Dependencies((), fields, {"files": [[case.id, case.sha256] for case in cases]})

    def train(self, stage: Stage, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        raise UserError("generator command: nothing to train")

    def adopt(self, stage: Stage, source: Path, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        raise UserError(f"--weights {source}: generator command loads its own weights; name them in the command")

    def sample(self, weights: Mapping[str, Path], requests: Sequence[Request], run: Run) -> Iterator[Volume | Failure]:
        conditional = any(request.condition is not None for request in requests)
        calls = self._calls("sample-conditional" if conditional else "sample", run)
        drawn = self._drawn(calls, requests)
        if any(request.index < MAX_FIRST_FAILURES for request in requests):
            return _patient(drawn, calls)
        return drawn  # resumed after a stop: the program has worked before

    def _drawn(self, calls: Calls, requests: Sequence[Request]) -> Iterator[Volume | Failure]:
        for request in requests:
            # 31 bits: the limit of NumPy's and many other generators.
            values = {"seed": seeds.derive(request.seed, "command") % 2**31, "index": request.index}
            affine = request.grid.affine() if request.condition is None else request.condition.affine
            yield calls.make(f"{request.index:05d}", values, request.grid, affine, condition=request.condition)

    def reconstruct(
        self, weights: Mapping[str, Path], volumes: Iterable[tuple[str, Volume]], run: Run
    ) -> Iterator[Volume | Failure]:
        calls = self._calls("reconstruct", run)
        made = (
            calls.make(safe(case), {}, Grid(shape=volume.shape), volume.affine, image=volume)
            for case, volume in volumes
        )
        return _patient(made, calls)

    def _calls(self, purpose: Purpose, run: Run) -> Calls:
        from .calls import Calls
        from .process import environment

        config = self.config
        variables = environment(config.environment)
        return Calls(
            self._words(purpose), self.folder, variables, config.timeout_s, config, config.output, purpose, run
        )


def safe(case: str) -> str:
    """A case id as a file name."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in case)


def _patient(made: Iterator[Volume | Failure], calls: Calls) -> Iterator[Volume | Failure]:
    """Volumes in order; raises `StepError` if the first three all fail, before any of them is published.

    A published failure is permanent; a command that never works should be fixed and run again.
    """
    held: list[Volume | Failure] = []
    for one in made:
        held.append(one)
        if not isinstance(one, Failure):
            break
        if len(held) == MAX_FIRST_FAILURES:
            raise StepError(
                f"generator command: the first {MAX_FIRST_FAILURES} volumes all failed, the last with: {one.reason}; "
                f"see {calls.log}: fix the program and run again"
            )
    yield from held
    yield from made
