"""The configuration of the artefact descriptors."""

from __future__ import annotations

from pydantic import Field

from medlord_bench.contracts import DataProtocol, Spacing
from medlord_bench.descriptors.compare import DescriptorConfig


class ArtefactsConfig(DescriptorConfig):
    """The voxel size at which nodules are counted in every volume."""

    spacing: Spacing | None = Field(
        None, description="voxel size in mm along R, A, S; unset: the grid's, or that of a thorax 350 mm wide"
    )

    def for_data(self, data: DataProtocol) -> ArtefactsConfig:
        """Fill the voxel size from the data set's protocol."""
        return self.model_copy(update={"spacing": self.spacing or data.grid.spacing})
