"""The configuration of the audit, and the definition of a copy."""

from __future__ import annotations

from pydantic import Field, model_validator

from medlord_bench.contracts import FrozenConfig


class MemorisationConfig(FrozenConfig):
    """What is compared, and the definition of a copy."""

    hu_window: tuple[int, int] = Field((-1000, 1000), description="HU window of real and synthetic volumes")
    cells: int = Field(40, ge=16, description="boxes along the longest axis of the compared thumbnail")
    neighbours: int = Field(5, ge=2, description="nearest patients: the first is compared with the others")
    rate: float = Field(0.05, gt=0, lt=1, description="fraction of unseen patients that may be classified as copies")
    largest: float = Field(
        1 / 3, gt=0, lt=1, description="largest threshold: a copy is three times as close to one patient as to others"
    )
    minimum: int = Field(8, ge=4, description="training volumes below which it is not run")

    @model_validator(mode="after")
    def _usable(self) -> MemorisationConfig:
        if self.hu_window[0] >= self.hu_window[1]:
            raise ValueError("hu_window: the first value must be below the second")
        return self
