"""The mapping of a user's own samples to HU on the protocol's grid: declared values, axes and grid."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from medlord_bench.contracts import DataProtocol, FrozenConfig
from medlord_bench.errors import UserError

AXES = ("RL", "AP", "SI")
ARRAYS = (".npy", ".npz")


class Scale(FrozenConfig):
    """Values in another range, mapped linearly to HU."""

    model_config = ConfigDict(populate_by_name=True)

    from_: tuple[float, float] = Field(alias="from", description="two values, e.g. 0,1 or -1,1")
    to: tuple[float, float] = Field(description="the HU that they map to, e.g. -1000,1000")

    @model_validator(mode="after")
    def _rises(self) -> Self:
        for name, (low, high) in (("from", self.from_), ("to", self.to)):
            if not low < high:
                raise ValueError(f"{name}: expected two ascending numbers, got {low:g},{high:g}")
        return self

    def __str__(self) -> str:
        return f"{self.from_[0]:g}..{self.from_[1]:g} mapped to {self.to[0]:g}..{self.to[1]:g} HU"


class MappingConfig(FrozenConfig):
    """The declared format of the volumes. Nothing is guessed: the defaults are HU, axes R, A, S and the protocol's
    grid."""

    intensity: Scale | None = Field(None, description="'hu', or {from: [0, 1], to: [-1000, 1000]}")
    orientation: str = Field(
        "ras", description="'ras': by the file's affine, arrays as (R, A, S); or the directions of the axes, e.g. LPS"
    )
    fit: Literal["exact", "crop-pad", "resize"] = Field(
        "exact", description="fit mode to the protocol's grid; exact: they must be on it"
    )

    @field_validator("intensity", mode="before")
    @classmethod
    def _as_it_is(cls, value: object) -> object:
        return None if value == "hu" else value

    @field_validator("orientation")
    @classmethod
    def _three_axes(cls, value: str) -> str:
        if value.lower() == "ras":
            return "ras"
        codes = value.upper()
        named = [next((i for i, pair in enumerate(AXES) if code in pair), None) for code in codes]
        if sorted(str(one) for one in named) != ["0", "1", "2"]:
            raise ValueError("expected 'ras' or three letters, one each of R/L, A/P and S/I, e.g. LPS")
        return codes

    def words(self) -> str:
        """The mapping as text, for the log."""
        values = "taken as HU" if self.intensity is None else str(self.intensity)
        axes = (
            "by each file's affine, arrays as R, A, S" if self.orientation == "ras" else f"taken as {self.orientation}"
        )
        grid = {"exact": "as it is", "crop-pad": "by cropping and padding", "resize": "by resampling"}[self.fit]
        return f"values {values}; axes {axes}; grid {grid}"


def check_window(mapping: MappingConfig, data: DataProtocol, where: Path | str) -> None:
    """Raise `UserError` if declared values cannot reach the ends of the protocol's window, as real ones do."""
    low, high = data.grid.hu_window
    scale = mapping.intensity
    if scale is not None and (scale.to[0] > low or scale.to[1] < high):
        raise UserError(
            f"{where}: intensity.to is {scale.to[0]:g},{scale.to[1]:g} HU, the window of {data.name} {low},{high}; "
            f"expected one window: --set dataset.hu_window={max(low, round(scale.to[0]))},{min(high, round(scale.to[1]))} "
            "clips the real images in the same way"
        )
