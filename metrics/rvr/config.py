"""The configuration of the regional volume ratios."""

from __future__ import annotations

from pydantic import Field

from medlord_bench.contracts import DataProtocol
from medlord_bench.contracts.segmentation import SegmentationConfig


class RVRConfig(SegmentationConfig):
    """The segmenter of the volumes, and the measured regions.

    minimum: volumes (samples) or patients (real) below which distributions are not compared: with 8 the standard error
    of a variance is already half of it. Medians and missing rates are given at any n.
    """

    minimum: int = Field(8, ge=4, description="volumes on each side below which distributions are not compared")
    permutations: int = Field(2000, ge=99, description="permutations of the test of rvr_joint")
    seed: int = Field(0, description="seed of permutations and subsets; one for all generators")

    def for_data(self, data: DataProtocol) -> RVRConfig:
        """Fill unset fields from the data set's protocol."""
        regions = data.rvr_regions if self.regions is None else self.regions
        return self.model_copy(update={"segmenter": self.segmenter or data.segmenter, "regions": regions})
