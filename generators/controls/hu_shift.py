"""The control with an HU offset: unseen real volumes with a constant added."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from .base import ControlConfig, Degraded

if TYPE_CHECKING:
    from numpy.typing import NDArray


class HUShiftConfig(ControlConfig):
    """The HU offset."""

    shift: int = Field(50, description="HU added to every voxel; values outside the grid's window are clipped")


class HUShift(Degraded):
    """Unseen real volumes, and reconstructions of the test volumes, with a constant added. Variants: the HU added."""

    name: ClassVar[str] = "hu-shift"
    Config: ClassVar[type[HUShiftConfig]] = HUShiftConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        text: {"shift": int(text)} for text in ("25", "50", "100", "200")
    }

    def degrade(self, hu: NDArray[Any]) -> NDArray[Any]:
        return hu.astype("int32") + self.config.shift
