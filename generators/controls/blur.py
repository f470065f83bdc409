"""The control with lost detail: unseen real volumes, blurred."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from .base import ControlConfig, Degraded

if TYPE_CHECKING:
    from numpy.typing import NDArray


class BlurConfig(ControlConfig):
    """The strength of the blur."""

    sigma: float = Field(1.0, gt=0, description="standard deviation of the Gaussian, voxels along every axis")


class Blur(Degraded):
    """Unseen real volumes, and reconstructions of the test volumes, under a Gaussian blur. Variants: its sigma."""

    name: ClassVar[str] = "blur"
    Config: ClassVar[type[BlurConfig]] = BlurConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        text: {"sigma": float(text)} for text in ("0.5", "1", "2", "4")
    }

    def degrade(self, hu: NDArray[Any]) -> NDArray[Any]:
        from scipy.ndimage import gaussian_filter

        blurred: NDArray[Any] = gaussian_filter(hu.astype("float32"), self.config.sigma, mode="nearest")
        return blurred
