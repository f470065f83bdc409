"""`artefacts`: do samples have seams, patterns, slice offsets or false nodules that real volumes do not have?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from medlord_bench.contracts import DataProtocol, Item, Run, State
from medlord_bench.contracts.metrics import MetricProtocol, Quantity
from medlord_bench.descriptors.metric import DescriptorMetric
from medlord_bench.descriptors.table import Descriptor
from medlord_bench.errors import UserError

from .config import ArtefactsConfig
from .quantities import QUANTITIES

OWN_RULES = {
    "tissue": "voxels above -950 HU in the body (largest piece of tissue with its holes, and the lungs); blocks of 16 x 16 samples of a plane of at most 128 x 128, a quarter of them tissue",
    "jump": "mean of the middle half of the signed differences of neighbouring planes in a block, minus the median of the two planes before and the two after",
    "seam": "lower quartile over the blocks of |jump|, over its median of all planes: at most one plane from the middle; "
    "and, as excess over both neighbours, the largest, and the mean of planes 8, 16 or 32 apart at the worst start and axis",
    "banding": "1.48 times the median over the planes of |median jump of the blocks|",
    "detail": "typical absolute difference of neighbouring voxels (mean of the middle half in a block, median over blocks), over the mean of the axes",
    "uneven": "|even - odd| / (even + odd) of that difference, of the planes",
    "period": "voxel minus its mean over 3 x 3 x 3, clipped to 100 HU, averaged by index modulo 8; standard deviation "
    "of what repeats with the period and with no shorter one",
    "nodules": "maxima of the smoothed lung, 60 HU above their surroundings, smallest over largest curvature above 0.45",
    "voxel size": "one for real volumes and samples: the grid's, or equal sides with the longer side in the plane 350 mm",
}


class Artefacts(DescriptorMetric):
    """Local faults without a network: seams, patterns of a decoder, slice offsets, uneven resolution, false nodules.

    No value has a better direction: it should be that of real volumes. The joint distance: lower is better.
    """

    Config: ClassVar[type[ArtefactsConfig]] = ArtefactsConfig
    version: ClassVar[int] = 1
    default: ClassVar[int | None] = 8
    prefix: ClassVar[str] = "artefact"
    quantities: ClassVar[tuple[Quantity, ...]] = QUANTITIES
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    config: ArtefactsConfig

    def __init__(self, config: ArtefactsConfig) -> None:
        self.config = config

    def descriptors(self) -> Sequence[Descriptor]:
        """The same of every volume."""
        from .measure import DESCRIPTORS

        return DESCRIPTORS

    def plugin_config(self) -> Mapping[str, Any]:
        return {}

    def protocol(self, data: DataProtocol) -> MetricProtocol:
        """Everything that decides its numbers besides the data."""
        text = {**self.compared_by(OWN_RULES), "spacing": self.config.spacing}
        return MetricProtocol(text=text)

    def extract(self, items: Iterable[Item], run: Run) -> Iterator[State]:
        """The descriptors of each volume: see `measure.DESCRIPTORS`."""
        from medlord_bench.descriptors.table import state_of
        from medlord_bench.volumes.arrays import read_hu
        from medlord_bench.volumes.body import nominal

        from .measure import measure

        for item in items:
            if item.path is None:
                raise UserError(f"artefacts: {item.id} failed and has no volume; expected only those that have one")
            hu = read_hu(item.path)
            x, y, z = hu.shape
            yield state_of(measure(hu, nominal((x, y, z), self.config.spacing)))
