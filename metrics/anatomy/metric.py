"""`anatomy`: do organs have the shape, place, vessels and bone of real ones? Against the real sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from medlord_bench.contracts import DataProtocol, Item, Run, State
from medlord_bench.contracts.metrics import MetricProtocol, Quantity
from medlord_bench.contracts.regions import values_of
from medlord_bench.contracts.segmentation import Segmentation
from medlord_bench.descriptors.metric import DescriptorMetric
from medlord_bench.descriptors.table import Descriptor
from medlord_bench.errors import UserError

from .config import AnatomyConfig
from .quantities import QUANTITIES

WHOLE = ("heart", "lungs", "lung_left", "lung_right")  # measured beside the named regions
OWN_RULES = {
    "voxel size": "one for real volumes and samples: the grid's, or equal sides with the longer side in the plane 350 mm",
    "padding": "left out",
    "blocks": "shapes and bone on blocks of about 3 mm, vessels of 1.5 mm",
    "body": "box of the largest piece of tissue above -400 HU, opened by 5 mm; in a patch, the patch",
    "sphericity": "surface of a ball of equal volume over the area of voxel faces / 1.5",
    "distance": "mean distance of the voxels of the first region from the second, over the body's width",
    "lung by HU": "mean HU over 3 mm within -960..-550, opened by 4 mm, closed by 8 mm",
    "mediastinum by HU": "per slice, share without lung between the first and last lung voxel of a row, median of the rows of at least 60 % of the greatest width; median and 90th percentile of the slices",
    "vessels": "share of the lungs' inner voxels: 250 HU above the median; or 120 HU above the opening by a box",
    "bone by HU": "above 200 HU and not bright and even over some mm (contrast-filled blood)",
}


class Anatomy(DescriptorMetric):
    """Shape and place of each region, width of the mediastinum, vessels of the lungs, share and HU of bone.

    No value has a better direction: it should be that of real volumes. The joint distance: lower is better.
    """

    Config: ClassVar[type[AnatomyConfig]] = AnatomyConfig
    version: ClassVar[int] = 1
    default: ClassVar[int | None] = 7
    prefix: ClassVar[str] = "anatomy"
    quantities: ClassVar[tuple[Quantity, ...]] = QUANTITIES
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    config: AnatomyConfig

    def __init__(self, config: AnatomyConfig) -> None:
        self.config = config
        self.segmentation = Segmentation(config, "anatomy")

    @cached_property
    def regions(self) -> tuple[str, ...]:
        """The named regions, and the whole heart and lungs where the segmenter defines them."""
        whole = (region for region in WHOLE if values_of(region, self.segmentation.segmenter.names))
        return tuple(dict.fromkeys((*self.segmentation.regions, *whole)))

    @property
    def segmenter(self) -> str:
        return self.segmentation.name

    def descriptors(self) -> Sequence[Descriptor]:
        """Those of each region, then those found by HU alone."""
        from .measure import descriptors

        return descriptors(self.regions)

    def plugin_config(self) -> Mapping[str, Any]:
        return self.config.segmenter_settings

    def protocol(self, data: DataProtocol) -> MetricProtocol:
        """Everything that decides its numbers besides the data."""
        text = {
            **self.compared_by(OWN_RULES),
            "segmenter": self.segmentation.described(data),
            "regions": list(self.regions),
            "spacing": self.config.spacing,
        }
        return MetricProtocol(label=self.segmentation.name, text=text)

    def extract(self, items: Iterable[Item], run: Run) -> Iterator[State]:
        """The descriptors of each volume and its label map: see `measure.descriptors`."""
        from medlord_bench.descriptors.table import state_of
        from medlord_bench.volumes.arrays import read_hu
        from medlord_bench.volumes.body import nominal
        from medlord_bench.volumes.checks import item_labels

        from .measure import measure

        for item in items:
            if item.volume is None:
                raise UserError(
                    f"anatomy: {item.id} has no volume beside its label map; expected an int16 volume in HU"
                )
            hu, labels = read_hu(item.volume), item_labels(item)
            if hu.shape != labels.shape:
                raise UserError(f"anatomy: {item.id}: label map {labels.shape}, volume {hu.shape}; expected one grid")
            mm = nominal(labels.shape, self.config.spacing)
            yield state_of(measure(hu, labels, self.regions, mm))
