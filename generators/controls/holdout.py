"""The control that is as good as can be: real volumes of patients that no training has seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from medlord_bench.contracts import Failure, FitMode, Request, Shape

from .base import Control, ControlConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .kept import Kept


class HoldoutConfig(ControlConfig):
    """Which volumes, and through which grid and window."""

    through: Shape | None = Field(None, description="bring them onto a grid of this shape and back; None: as they are")
    fit: FitMode = Field("resize", description="how they get there and back")
    window: tuple[int, int] | None = Field(None, description="lowest and highest HU kept there; None: the protocol's")


class Holdout(Control):
    """Real volumes of the validation split, one after another: the best that a generator can do.

    Through another grid and back: the best that a generator which works on that grid can do.
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
