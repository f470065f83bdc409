"""The configuration of the anatomy descriptors."""

from __future__ import annotations

from pydantic import Field

from medlord_bench.contracts import DataProtocol, Spacing
from medlord_bench.contracts.segmentation import SegmentationConfig
from medlord_bench.descriptors.compare import DescriptorConfig


class AnatomyConfig(SegmentationConfig, DescriptorConfig):
    """The segmenter, the regions, and the voxel size at which every volume is measured."""

    spacing: Spacing | None = Field(
        None, description="voxel size in mm along R, A, S; unset: the grid's, or that of a thorax 350 mm wide"
    )

    def for_data(self, data: DataProtocol) -> AnatomyConfig:
        """Fill unset fields from the data set's protocol."""
        regions = data.rvr_regions if self.regions is None else self.regions
        update = {"segmenter": self.segmenter or data.segmenter, "regions": regions}
        return self.model_copy(update={**update, "spacing": self.spacing or data.grid.spacing})
