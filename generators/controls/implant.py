"""The control for the HU window: unseen real volumes with a metal ball, at the top of the window or far above it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from medlord_bench.contracts import DataProtocol, Failure, Request
from medlord_bench.errors import UserError
from medlord_bench.util import seeds

from .base import Control, ControlConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .kept import Kept

WINDOW_TOP = 1000  # HU: the end of the metrics' default window


class ImplantConfig(ControlConfig):
    """HU and size of the ball."""

    hu: int = Field(WINDOW_TOP, description="HU of the ball; values outside the grid's window are clipped")
    radius: float = Field(4.0, gt=0, description="radius of the ball, voxels")


class Implant(Control):
    """Unseen real volumes with a ball of metal in them. Variants: `low`, at the top of the measuring window of
    -1000..1000 HU, and `high`, at 2000 HU, at the same position. A metric that applies that window gives both
    the same score."""

    name: ClassVar[str] = "implant"
    Config: ClassVar[type[ImplantConfig]] = ImplantConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {"low": {"hu": WINDOW_TOP}, "high": {"hu": 2000}}

    def check(self, data: DataProtocol) -> None:
        """Raises `UserError` if the grid's own window ends where the measuring window does."""
        super().check(data)
        top = data.grid.hu_window[1]
        if top <= WINDOW_TOP:
            raise UserError(
                f"control {self.name}: the window of {data.name} ends at {top} HU, so low and high would be the same; "
                f"expected an end above {WINDOW_TOP}: --set dataset.hu_window=-1000,2000"
            )

    def draw(self, kept: Kept, request: Request) -> NDArray[Any] | Failure:
        import numpy as np

        hu = np.array(kept.hu(request.index))
        rng = seeds.numpy_rng(request.seed, "implant")  # independent of HU: same position in both variants
        distance = np.zeros(hu.shape)
        for axis, length in enumerate(hu.shape):
            margin = min(self.config.radius, (length - 1) / 2)
            centre = rng.uniform(margin, length - 1 - margin)
            shape = [-1 if other == axis else 1 for other in range(3)]
            distance += ((np.arange(length) - centre) ** 2).reshape(shape)
        hu[distance <= self.config.radius**2] = self.config.hu
        return hu
