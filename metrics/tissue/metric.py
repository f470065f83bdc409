"""`tissue`: have the tissues the HU, the noise and the sharpness of real ones?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from medlord_bench.contracts import DataProtocol, Item, Run, State
from medlord_bench.contracts.metrics import MetricProtocol, Quantity
from medlord_bench.contracts.segmentation import Segmentation
from medlord_bench.descriptors.metric import DescriptorMetric
from medlord_bench.descriptors.table import Descriptor

from .config import TissueConfig
from .quantities import QUANTITIES

RULES = {
    "blocks": "3 x 3 x 3 voxels of the image without its padding: mean, and standard deviation about mean and slopes; a number of "
    "a tissue needs 20 blocks",
    "classes": "by the mean in HU: air below -965, lung to -500, fat -200 to -20, soft tissue to 130; contrast: above, quiet, 20 "
    "blocks or more in one piece; bone: what else is above",
    "tissue_hu": "median of the blocks' means, of air, lung, fat and soft tissue where all six neighbours are of the class; "
    "fat and soft tissue without blocks of more than 1.5 times the volume's noise",
    "tissue_spread": "interquartile range of the same over 1.349",
    "tissue_noise": "lower quartile of the blocks' standard deviations",
    "tissue_share": "blocks of the class over all blocks that are not air",
    "tissue_nps": "power-weighted mean frequency of homogeneous squares of 8 voxels of fat and soft tissue, per plane",
    "tissue_edge": "lower quartile of the widths, step over steepest difference, of borders at -500 HU along lines",
    "regions": "HU: median of at least 50 voxels; spread and noise: of blocks wholly in one label of the region",
}


class TissueMetric(DescriptorMetric):
    """HU, spread, noise, noise spectrum and sharpness of tissues, each against real volumes, and one joint test.

    No descriptor has a better direction: each should equal that of real volumes. Distances and shifts: 0 is best.
    """

    Config: ClassVar[type[TissueConfig]] = TissueConfig
    version: ClassVar[int] = 1
    default: ClassVar[int | None] = 6
    prefix: ClassVar[str] = "tissue"
    quantities: ClassVar[tuple[Quantity, ...]] = QUANTITIES
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {"regions": {"by_region": True}}

    config: TissueConfig

    def __init__(self, config: TissueConfig) -> None:
        self.config = config
        self.segmentation = Segmentation(config, "tissue") if config.by_region else None

    @cached_property
    def regions(self) -> tuple[str, ...]:
        """The regions that are measured beside the tissue classes."""
        return () if self.segmentation is None else self.segmentation.regions

    @property
    def segmenter(self) -> str:
        return "" if self.segmentation is None else self.segmentation.name

    def descriptors(self) -> Sequence[Descriptor]:
        """Those of the tissue classes, then those of each region."""
        from .describe import descriptors

        return descriptors(self.regions)

    def plugin_config(self) -> Mapping[str, Any]:
        return self.config.segmenter_settings

    def protocol(self, data: DataProtocol) -> MetricProtocol:
        """Everything that decides its numbers besides the data."""
        from .describe import RESOLUTION

        text = {**self.compared_by(RULES), "resolution": RESOLUTION}
        if self.segmentation is not None:
            text |= {"segmenter": self.segmentation.described(data), "regions": list(self.regions)}
        return MetricProtocol(label=self.segmenter, text=text)

    def extract(self, items: Iterable[Item], run: Run) -> Iterator[State]:
        """The descriptors of each volume, float64 (K,): see `describe.descriptors`."""
        from medlord_bench.descriptors.table import state_of
        from medlord_bench.errors import UserError
        from medlord_bench.volumes.arrays import read_hu
        from medlord_bench.volumes.checks import item_labels

        from .describe import describe

        for item in items:
            labels = None if self.segmentation is None else item_labels(item)
            path = item.path if labels is None else item.volume
            if path is None:
                raise UserError(f"tissue: {item.id} has no volume; expected only items that have one")
            yield state_of(describe(read_hu(path), labels, self.regions))
