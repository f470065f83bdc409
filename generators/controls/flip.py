"""The control with a wrong orientation: unseen real volumes with one axis reversed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from medlord_bench.contracts import Failure, Request

from .base import Control, ControlConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .kept import Kept

AXES = ("left-right", "front-back", "head-feet")


class FlipConfig(ControlConfig):
    """The reversed axis."""

    axis: Literal["left-right", "front-back", "head-feet"] = Field("head-feet", description="the reversed axis")


class Flip(Control):
    """Unseen real volumes with one axis reversed, as after ignoring an affine. Variants: the axis."""

    name: ClassVar[str] = "flip"
    Config: ClassVar[type[FlipConfig]] = FlipConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {axis: {"axis": axis} for axis in AXES}

    def draw(self, kept: Kept, request: Request) -> NDArray[Any] | Failure:
        import numpy as np

        return np.flip(kept.hu(request.index), AXES.index(self.config.axis))
