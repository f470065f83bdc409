"""The best possible control: real volumes of patients that no training has seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from medlord_bench.contracts import Failure, FitMode, HUWindow, Request, Shape

from .base import Control, ControlConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .kept import Kept


class HoldoutConfig(ControlConfig):
    """The volumes, and the grid and window through which they pass."""

    through: Shape | None = Field(None, description="resample them to a grid of this shape and back; None: unchanged")
    fit: FitMode = Field("resize", description="fit mode to that grid and back")
    window: HUWindow | None = Field(None, description="lowest and highest HU on that grid; None: the protocol's")


class Holdout(Control):
    """Real volumes of the validation split, one after another: the best possible result.

    Through another grid and back: the best possible result of a generator with that grid.
    """

    name: ClassVar[str] = "holdout"
    Config: ClassVar[type[ControlConfig]] = HoldoutConfig

    def draw(self, kept: Kept, request: Request) -> NDArray[Any] | Failure:
        hu = kept.hu(request.index)
        if self.config.through is None:
            return hu
        from medlord_bench.contracts import Volume
        from medlord_bench.volumes.native_grid import from_native, to_native

        window = self.config.window or kept.hu_window
        volume = Volume(hu.clip(*window), request.grid.affine())
        there = to_native(volume, self.config.through, window, self.config.fit)
        return from_native(there, volume.shape, volume.affine, self.config.fit, window[0]).hu
