"""The configuration of the tissue metric."""

from __future__ import annotations

from pydantic import Field

from medlord_bench.contracts import DataProtocol
from medlord_bench.contracts.segmentation import SegmentationConfig
from medlord_bench.descriptors.compare import DescriptorConfig


class TissueConfig(DescriptorConfig, SegmentationConfig):
    """Whether a segmenter's regions are measured beside the tissue classes, and how descriptors are compared."""

    by_region: bool = Field(
        False, description="measure the regions of a segmenter too, as if a segmenter or regions are given"
    )

    def for_data(self, data: DataProtocol) -> TissueConfig:
        """Fill unset fields from the data set's protocol. Without regions no segmenter is used."""
        if not self.by_region and self.segmenter is None and self.regions is None:
            return self
        regions = data.rvr_regions if self.regions is None else self.regions
        update = {"by_region": True, "segmenter": self.segmenter or data.segmenter, "regions": regions}
        return self.model_copy(update=update)
