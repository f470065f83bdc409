"""The protocol of a reader study: what is shown to whom, and what is asked. Frozen and hashed before any draw."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from medlord_bench.contracts import FrozenConfig, HUWindow, Spacing
from medlord_bench.contracts.validation import validate
from medlord_bench.errors import UserError
from medlord_bench.util.documents import read_yaml
from medlord_bench.util.hashing import digest

ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,15}")
REAL = "real"  # the name of the source of real volumes
LEAST_REPEATS = 6  # of hidden repeats: with fewer, agreement with oneself has no meaning
GAP = 20  # cases between a case and its hidden repeat, where the study is long enough

QUANTITIES = (  # that the leak check compares with the source
    *("size", "listing", "order", "times_shown", "uid", "minimum", "maximum", "unique", "non_integer", "not_finite"),
    *("border", "border_share", "padding", "equal_planes"),
    *("shape_x", "shape_y", "shape_z", "spacing_x", "spacing_y", "spacing_z"),
)

Format = Literal["browser", "nifti", "dicom", "png", "mha"]
Side = Annotated[int, Field(ge=2)]  # voxels: a case is one smaller
Size = Annotated[tuple[Side, Side, Side], Field(description="voxels along R, A, S")]


class SourceSpec(FrozenConfig):
    """Where volumes of one kind come from: a contestant of a run, its real test images, or a folder.

    name: in the analysis; never in a pack. contestant: of the run; `real` for its real test volumes.
    """

    name: str = Field(min_length=1)
    run: Path | None = Field(None, description="a run folder, or its name in the store")
    contestant: str = ""
    folder: Path | None = Field(None, description="a folder of NIfTI, MetaImage or NRRD files")

    @model_validator(mode="after")
    def _one_place(self) -> SourceSpec:
        if (self.run is None) == (self.folder is None):
            raise ValueError(f"source {self.name}: give either run (with contestant) or folder")
        if self.run is not None and not self.contestant:
            raise ValueError(f"source {self.name}: contestant is not given; expected one of the run, or 'real'")
        return self

    @property
    def real(self) -> bool:
        """Whether its volumes are of patients: those of a run by contestant, those of a folder by name."""
        return (self.name if self.run is None else self.contestant) == REAL


def check_waived(names: Sequence[str]) -> None:
    """Raise `UserError` for a name that is no quantity of the leak check."""
    for name in names:
        if name not in QUANTITIES:
            raise UserError(f"waived quantity {name!r} is unknown; expected one of: {', '.join(QUANTITIES)}")


class StudyProtocol(FrozenConfig):
    """A reader study. Every field is part of its hash; paths of sources are not."""

    title: str = ""
    sources: tuple[SourceSpec, ...] = Field(min_length=2)
    n: PositiveInt = Field(10, description="volumes of each source, drawn from all it has")
    shape: Size | None = Field(
        None,
        description="the field that every volume is cropped or padded to, of which a case shows one voxel less along each axis; "
        "unset: that of the first source's first volume",
    )
    spacing: Spacing | None = Field(
        None, description="voxel size of the common grid in mm; unset: that of the first source's first volume"
    )
    window: HUWindow = Field((-1000, 2000), description="HU that every volume is clipped to")
    rubric: str = Field("ct-synthesis-v1", description="name of a rubric, or a YAML file")
    readers: tuple[str, ...] = Field(("R1",), description="aliases of the readers; no names of persons")
    design: Literal["ratings", "pairs"] = Field(
        "ratings", description="ratings: each volume alone; pairs: which of two volumes is real, or looks more real"
    )
    pairs: PositiveInt | None = Field(
        None,
        description="of the design `pairs`: choices of each reader; unset: each volume once against each other source",
    )
    repeats: int | None = Field(None, ge=0, description="hidden repeats of each reader; unset: a tenth, at least 6")
    practice: int = Field(2, ge=0, description="cases to practise on, which are not drawn for the study")
    sessions: PositiveInt = Field(1, description="sittings that the cases are divided into")
    disclosed: bool = Field(False, description="whether the reader's page says which share of the cases is real")
    language: Literal["en", "de"] = "en"
    formats: tuple[Format, ...] = Field(("browser",), min_length=1)
    waived: tuple[str, ...] = Field((), description="nuisance quantities that the leak check does not judge, by name")

    @field_validator("readers")
    @classmethod
    def _aliases(cls, readers: tuple[str, ...]) -> tuple[str, ...]:
        if not readers:
            raise ValueError("expected at least one alias, such as R1")
        for alias in readers:
            if not ALIAS.fullmatch(alias):
                raise ValueError(f"reader {alias!r}: expected an alias of letters, digits and '-', such as R1")
        if len({alias.lower() for alias in readers}) < len(readers):
            raise ValueError(f"readers {', '.join(readers)}: two have one alias; give each reader its own")
        return readers

    @field_validator("waived")
    @classmethod
    def _known(cls, waived: tuple[str, ...]) -> tuple[str, ...]:
        try:
            check_waived(waived)
        except UserError as error:
            raise ValueError(str(error)) from None
        return waived

    @model_validator(mode="after")
    def _usable(self) -> StudyProtocol:
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError(f"sources {', '.join(names)}: two have one name; give each source its own")
        if self.design == "ratings" and self.pairs is not None:
            raise ValueError(
                f"pairs: {self.pairs} has no effect in the design 'ratings'; remove it, or set design: pairs"
            )
        if self.design == "pairs" and self.repeats is not None:
            raise ValueError(f"repeats: {self.repeats} has no effect in the design 'pairs'; remove it")
        if self.repeats is not None and self.repeats > self.cases:
            raise ValueError(
                f"repeats: {self.repeats}, expected at most one for each of the {self.cases} cases; lower it"
            )
        if self.pairs is not None and self.pairs > self.n**2 * self._kinds:
            raise ValueError(
                f"pairs: {self.pairs}, but there are {self.n**2 * self._kinds} different pairs of volumes; lower it, or raise n"
            )
        items = self.choices if self.design == "pairs" else self.cases + self.hidden_repeats
        if self.sessions > items:
            raise ValueError(f"sessions: {self.sessions}, but a reader has {items} items; lower it")
        if "browser" not in self.formats and self.design == "pairs":
            raise ValueError("formats: the design 'pairs' is read in the browser; add 'browser'")
        return self

    @property
    def cases(self) -> int:
        """Volumes of the study, without repeats and practice."""
        return self.n * len(self.sources)

    @property
    def has_real(self) -> bool:
        """Whether a source has real volumes."""
        return any(REAL in (source.name, source.contestant) for source in self.sources)

    @property
    def choices(self) -> int:
        """Choices of each reader in the design `pairs`. With more than the default, volumes come again in other pairs."""
        return self.pairs or self.n * self._kinds

    @property
    def _kinds(self) -> int:
        """In how many ways two sources can be in a pair, one of them real if there is a real source."""
        others = len(self.sources) - 1
        return others if self.has_real else others * len(self.sources) // 2

    @property
    def hidden_repeats(self) -> int:
        """Volumes that each reader sees twice. Pairs have none: a repeated pair is another pair."""
        if self.design == "pairs":
            return 0
        wanted = max(LEAST_REPEATS, math.ceil(self.cases / 10)) if self.repeats is None else self.repeats
        return min(wanted, self.cases)

    def digest(self) -> str:
        """sha256 of the protocol without the paths of its sources."""
        text = self.model_dump(mode="json")
        for source in text["sources"]:
            del source["run"], source["folder"]
        return digest(text)


def read_protocol(path: Path) -> StudyProtocol:
    """Read a YAML protocol. A relative folder is taken relative to the file, and so is a run folder beside it.

    Raises `UserError` naming the file and the field.
    """
    protocol = validate(StudyProtocol, read_yaml(path, "a YAML protocol"), str(path))
    beside = path.resolve().parent
    sources = []
    for source in protocol.sources:
        folder = source.folder and beside / source.folder
        run = beside / source.run if source.run and (beside / source.run).is_dir() else source.run
        sources.append(source.model_copy(update={"folder": folder, "run": run}))
    return protocol.model_copy(update={"sources": tuple(sources)})
