"""`files`: samples that already exist in a folder, measured like those of any generator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from logging import Logger
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

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
from medlord_bench.contracts.inventory import Inventory
from medlord_bench.errors import UserError
from medlord_bench.plugins.datasets.on_disk.layouts import Cases
from medlord_bench.volumes.fingerprints import Found
from medlord_bench.volumes.formats import SUFFIXES
from medlord_bench.volumes.listing import listed

from .manifest import DEFAULT, Row, rows_of, searched
from .mapping import ARRAYS, MappingConfig, check_window

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONTENT = NotInKey("the key has the content of the files in it")
CAPABILITY: Mapping[Purpose, Capability] = {
    "sample": "unconditional",
    "sample-conditional": "conditional",
    "reconstruct": "reconstructs",
}


class FilesConfig(MappingConfig):
    """The folder of the samples, their roles, and their mapping to HU on the protocol's grid."""

    folder: Annotated[Path | None, CONTENT] = Field(None, description="folder of the samples")
    manifest: Annotated[Path | None, CONTENT] = Field(
        None,
        description="CSV or TSV with columns sample, condition, reconstruction_of, in the folder unless absolute; "
        "unset: manifest.csv, else every volume file of the folder is an unconditional sample",
    )

    @field_validator("folder")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()


class Files:
    """Samples, conditional samples and reconstructions that already exist in a folder, by manifest; nothing is run.

    The variant is a name for them: `--generator files:mine --set files:mine.folder=DIR`.
    """

    Config: ClassVar[type[FilesConfig]] = FilesConfig
    version: ClassVar[int] = 1
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    free_variants: ClassVar[bool] = True

    def __init__(self, config: FilesConfig) -> None:
        self.config = config
        rows = [] if config.folder is None else self.rows
        self.capabilities: frozenset[Capability] = frozenset(CAPABILITY[row.purpose] for row in rows)

    @property
    def folder(self) -> Path:
        if self.config.folder is None:
            raise UserError("generator files: no folder given; expected --set files:NAME.folder=DIR")
        return self.config.folder

    @cached_property
    def rows(self) -> list[Row]:
        return rows_of(self.folder, self.config.manifest)

    def _of(self, purpose: Purpose) -> list[Row]:
        return [row for row in self.rows if row.purpose == purpose]

    def check(self, data: DataProtocol) -> None:
        """Checks every file's header. Raises `UserError` if one cannot be read or is on another grid."""
        check_window(self.config, data, self.folder)
        shapes = [self._shape(row) for row in self.rows]
        if shapes and all(len(shape) != 3 for shape in shapes):
            raise UserError(
                f"{self.rows[0].path}: has shape {shapes[0]}, and no file of {self.folder} has three axes; expected one 3-D volume "
                "per file: save it without its channel axis"
            )
        for row, shape in zip(self.rows, shapes, strict=True):
            if self.config.fit == "exact" and len(shape) == 3 and shape != data.grid.shape:
                raise UserError(_other_grid(row.path, shape, data))

    def _shape(self, row: Row) -> tuple[int, ...]:
        from .reading import shape_of

        return shape_of(row.path, self.config, row.files)

    def inventory(self) -> Inventory:
        """What is taken of the folder, and what is left out."""
        from medlord_bench.plugins.datasets.on_disk.inventory import block

        if len(self.rows) and self._by_manifest:
            listing, cases = listed(self.folder, suffixes=(*SUFFIXES, *ARRAYS), flat=True), Cases("manifest", [])
            named = {row.path for row in self.rows}
            unused = ["/".join(one.parts) for one in listing.images if one.path not in named]
            found = [Found(str(i), "", row.path) for i, row in enumerate(self.rows)]
            cases = replace(
                cases, found=found, unused={"volumes that the manifest does not name": unused} if unused else {}
            )
        else:
            listing, cases = searched(self.folder)
        return block(listing, cases, f"{len(self.rows)} volumes")

    @property
    def _by_manifest(self) -> bool:
        return self.config.manifest is not None or (self.folder / DEFAULT).exists()

    def grid_shape(self) -> tuple[int, ...]:
        """The shape of the first volume along R, A, S, from its header."""
        return self._shape(self.rows[0])

    def available(self, data: DataProtocol) -> int | None:
        """The number of sample files."""
        return len(self._of("sample"))

    def stages(self) -> Sequence[Stage]:
        """None: nothing is trained."""
        return ()

    def dependencies(self, purpose: Purpose) -> Dependencies:
        """The files' content, which is hashed once and cached, and the declared mapping."""
        from medlord_bench.volumes.fingerprints import fingerprint

        rows = self._of(purpose)
        cases = fingerprint((Found(str(i), "", row.path, files=row.files) for i, row in enumerate(rows)), {})
        files = [[row.case, case.sha256] for row, case in zip(rows, cases, strict=True)]
        return Dependencies((), tuple(MappingConfig.model_fields), {"files": files})

    def train(self, stage: Stage, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        raise UserError("generator files: nothing to train")

    def adopt(self, stage: Stage, source: Path, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        raise UserError(f"--weights {source}: generator files has no weights to load; remove --weights")

    def sample(self, weights: Mapping[str, Path], requests: Sequence[Request], run: Run) -> Iterator[Volume | Failure]:
        conditional = any(request.condition is not None for request in requests)
        rows = self._of("sample-conditional" if conditional else "sample")
        self._say(rows, run)
        if conditional:
            by_case = {row.case: row for row in rows}
            if requests[0].index == 0:  # at the start only: after a stop, exactly the missing ones may remain
                self._check_cases(by_case, [request.case for request in requests])
            found = [by_case.get(request.case) for request in requests]
        else:
            found = [rows[request.index] for request in requests]
        seen = Extremes()
        for request, row in zip(requests, found, strict=True):
            affine = request.grid.affine() if request.condition is None else request.condition.affine
            yield self._volume(row, request.case, request.grid, affine, seen)
        if requests:
            seen.warn(requests[0].grid.hu_window, run.log)

    def reconstruct(
        self, weights: Mapping[str, Path], volumes: Iterable[tuple[str, Volume]], run: Run
    ) -> Iterator[Volume | Failure]:
        rows = self._of("reconstruct")
        self._say(rows, run)
        by_case = {row.case: row for row in rows}
        for case, volume in volumes:
            yield self._volume(by_case.get(case), case, Grid(shape=volume.shape), volume.affine, Extremes())

    def _say(self, rows: Sequence[Row], run: Run) -> None:
        run.log.info("files: %d volumes of %s; %s", len(rows), self.folder, self.config.words())

    def _check_cases(self, by_case: Mapping[str, Row], wanted: Sequence[str]) -> None:
        """Raise `UserError` if the manifest has none of the wanted cases, which means that its ids differ."""
        if not set(wanted) & set(by_case):
            raise UserError(
                f"{self.folder}: no condition of the manifest is a test case; expected case ids such as {wanted[0]}, "
                f"got {next(iter(by_case))}: fix the column 'condition'"
            )

    def _volume(
        self, row: Row | None, case: str, grid: Grid, affine: NDArray[np.float64], seen: Extremes
    ) -> Volume | Failure:
        from .reading import hu_on_grid

        if row is None:
            return Failure(f"the manifest has no file for case {case}")
        hu = hu_on_grid(row.path, self.config, grid, row.files)
        if isinstance(hu, Failure):
            return hu
        seen.add(hu)
        return Volume(hu, affine)


class Extremes:
    """The lowest and highest HU of each sample, which reveal clipping to a window narrower than the protocol's."""

    def __init__(self) -> None:
        self.found: list[tuple[int, int]] = []

    def add(self, hu: NDArray[np.int16]) -> None:
        self.found.append((int(hu.min()), int(hu.max())))

    def warn(self, window: tuple[int, int], log: Logger) -> None:
        """Warn if all of several samples end at the same value inside the window."""
        low, high = ({ends[side] for ends in self.found} for side in (0, 1))
        if len(self.found) < 2:
            return
        for values, end, name in ((low, window[0], "begin"), (high, window[1], "end")):
            (value,) = values if len(values) == 1 else (end,)
            if value != end:
                log.warning(
                    "files: all %d samples %s at %d HU, the protocol's window at %d: were they made with a narrower one? "
                    "If so, set dataset.hu_window to it, so that real images are clipped in the same way",
                    *(len(self.found), name, value, end),
                )


def _other_grid(path: Path, shape: tuple[int, ...], data: DataProtocol) -> str:
    """The error for a file on another grid than the protocol's."""
    here, there = ("x".join(map(str, one)) for one in (shape, data.grid.shape))
    advice = "set files:NAME.fit=crop-pad or resize, or measure on its grid with --set dataset.shape="
    if sorted(shape) == sorted(data.grid.shape):
        advice = (
            "its axes may be in another order: set files:NAME.orientation; else files:NAME.fit, or --set dataset.shape="
        )
    return (
        f"{path}: its grid is {here} (along R, A, S), that of {data.name} {there}; {advice}{','.join(map(str, shape))}"
    )
