"""A data set without cases: a reference file replaces its real volumes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from medlord_bench.contracts import Case, DataProtocol, FrozenConfig, LabelMap, Split, Volume
from medlord_bench.contracts.reference import Reference, read_reference
from medlord_bench.errors import MissingError, UserError


class ReferenceConfig(FrozenConfig):
    """The reference file."""

    file: Path | None = Field(None, description="a file of `medlord-bench reference export`")

    @field_validator("file")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()


class ReferenceDataset:
    """The real volumes of another site, as aggregate statistics in a file. It has a protocol and no cases.

    `medlord-bench evaluate --reference FILE` uses it. What needs cases is not run.
    """

    Config: ClassVar[type[ReferenceConfig]] = ReferenceConfig
    version: ClassVar[int] = 1

    def __init__(self, config: ReferenceConfig) -> None:
        self.config = config

    @cached_property
    def reference(self) -> Reference:
        if self.config.file is None:
            raise MissingError("dataset reference: no file given; expected --set dataset.file=FILE")
        return read_reference(self.config.file)

    @property
    def protocol(self) -> DataProtocol:
        """That of the real volumes."""
        return self.reference.meta.data

    @property
    def overlaps(self) -> Sequence[str]:
        return self.reference.meta.overlaps

    def cases(self, split: Split) -> Sequence[Case]:
        _ = self.reference  # a missing file is reported here too
        return ()

    def load(self, case: Case) -> tuple[Volume, LabelMap | None]:
        raise UserError(f"{self.config.file}: a reference file has no cases; expected nothing to load {case.id}")
