"""The control without variety: one real volume repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from medlord_bench.contracts import DataProtocol, Failure, Request
from medlord_bench.util import seeds

from .base import Control, ControlConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .kept import Kept


class ModeCollapseConfig(ControlConfig):
    """The similarity of the samples."""

    noise_hu: float = Field(5.0, gt=0, description="standard deviation of the noise that distinguishes samples, HU")
    volumes: int = Field(1, ge=1, description="volumes that are repeated in turn")


class ModeCollapse(Control):
    """One real, unseen volume repeated, with some noise: each sample is realistic, but the set has no variety."""

    name: ClassVar[str] = "mode-collapse"
    Config: ClassVar[type[ModeCollapseConfig]] = ModeCollapseConfig

    def available(self, data: DataProtocol) -> int | None:
        """Any number."""
        return None

    def draw(self, kept: Kept, request: Request) -> NDArray[Any] | Failure:
        hu = kept.hu(request.index % len(kept.ids))
        noise = seeds.numpy_rng(request.seed, "mode-collapse").standard_normal(hu.shape, dtype="float32")
        return hu + self.config.noise_hu * noise
