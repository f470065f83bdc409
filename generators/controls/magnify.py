"""The control with an organ of the wrong size: unseen real volumes with one region magnified in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from medlord_bench.contracts import DataProtocol, Failure, Request
from medlord_bench.contracts.regions import CARDIAC

from .base import Control, ControlConfig, require_region

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .kept import Kept

REACH = 2.0  # of the region's radius times the zoom: beyond it nothing moves


class MagnifyConfig(ControlConfig):
    """The magnified region."""

    region: str = Field("heart", description="the region that is magnified")
    zoom: float = Field(1.4, gt=1, description="its magnification along each axis")


class Magnify(Control):
    """Unseen real volumes with one region magnified about its centre, and its surroundings compressed. Variants: the
    region."""

    name: ClassVar[str] = "magnify"
    Config: ClassVar[type[MagnifyConfig]] = MagnifyConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {region: {"region": region} for region in ("heart", *CARDIAC)}
    with_labels: ClassVar[bool] = True

    def check(self, data: DataProtocol) -> None:
        """Raises `UserError` if there are no masks, or none of the region."""
        super().check(data)
        require_region(self.name, self.config.region, data)

    def draw(self, kept: Kept, request: Request) -> NDArray[Any] | Failure:
        import numpy as np
        from scipy.ndimage import map_coordinates

        from .tissue import mask_of

        hu, places = kept.hu(request.index), np.nonzero(mask_of(kept.label_map(request.index), self.config.region))
        if not len(places[0]):
            return Failure(f"the volume has no {self.config.region}")
        centre = [float(where.mean()) for where in places]
        radius = [max(float(where.std()) * 5**0.5, 1.0) for where in places]  # half axes of an ellipsoid
        grids = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in hu.shape), indexing="ij", sparse=True)
        distance = np.sqrt(sum(((g - c) / r) ** 2 for g, c, r in zip(grids, centre, radius, strict=True)))
        inner, outer = self.config.zoom, self.config.zoom * REACH  # in radii: 1 is read at `zoom`, nothing moves beyond
        slope = (outer - 1) / (outer - inner)
        read = np.where(distance < inner, distance / inner, 1 + (distance - inner) * slope)
        scale = np.where(distance < outer, read / np.maximum(distance, 1e-6), 1.0)
        at = [c + (g - c) * scale for g, c in zip(grids, centre, strict=True)]
        return np.asarray(map_coordinates(hu.astype(np.float32), at, order=1, mode="nearest"))
