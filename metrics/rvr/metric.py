"""`rvr`: is there as much of every organ as in real volumes? Regional volume ratios against the real sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from medlord_bench.contracts import DataProtocol, Item, Made, MetricInputs, Need, Run, Source, State
from medlord_bench.contracts.metrics import MetricProtocol, Quantity
from medlord_bench.contracts.reference import Statistics
from medlord_bench.contracts.results import CaseRow, Replicates, Score
from medlord_bench.contracts.segmentation import Segmentation

from .config import RVRConfig
from .quantities import QUANTITIES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SOURCES = (Source.SAMPLES, Source.REAL_TRAIN, Source.REAL_TEST)
RULES = {
    "rvr": "voxels in the region / all voxels of the grid, counted in the label map",
    "rvr_ml": "voxels times voxel size; not run where generated volumes have none",
    "real": "labelled by the same segmenter as the samples; a patient counts once, with the median of the volumes",
    "failed": "counted in n and as lacking every region; left out of the distributions",
    "missing": "RVR 0, or below half the first percentile of the real train volumes that have the region",
    "rvr_w1": "Wasserstein-1, one n for samples and floor: no more samples than the other real split has patients",
    "rvr_ks": "two-sample Kolmogorov-Smirnov, one region alone",
    "rvr_variance_ratio": "sample variance over real variance (n - 1), interval by the jackknife of its logarithm",
    "rvr_joint": "unbiased energy distance over all regions, each in standard deviations of the reference; p by "
    "permutation of volumes and patients, each region in standard deviations of both sets together, so that it is exact",
    "floor": "the other real split against the same reference",
}


class RVR:
    """Regional volume ratios against real ones: medians, distances, variance, missing regions, one joint test.

    A ratio has no better direction: it should be close to that of the real volumes. Distances: lower is better.
    """

    Config: ClassVar[type[RVRConfig]] = RVRConfig
    version: ClassVar[int] = 2
    default: ClassVar[int | None] = 2
    quantities: ClassVar[tuple[Quantity, ...]] = QUANTITIES
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(self, config: RVRConfig) -> None:
        self.config = config
        self.segmentation = Segmentation(config, "rvr")

    def needs(self) -> Sequence[Need]:
        """Label maps of the samples and of both real splits, by one segmenter."""
        return [Need(source, Made.STATES, segmenter=self.segmentation.name) for source in SOURCES]

    def plugin_config(self) -> Mapping[str, Any]:
        return self.config.segmenter_settings

    def protocol(self, data: DataProtocol) -> MetricProtocol:
        """Everything that decides its numbers besides the data."""
        config = self.config
        text: dict[str, Any] = {
            "segmenter": self.segmentation.described(data),
            "regions": list(self.segmentation.regions),
            "minimum": config.minimum,
            "permutations": config.permutations,
            "seed": config.seed,
            "rules": RULES,
        }
        return MetricProtocol(label=self.segmentation.name, text=text)

    def extract(self, items: Iterable[Item], run: Run) -> Iterator[State]:
        """Voxels of each region, of the grid, and the size of one: see `volumes.count`."""
        from medlord_bench.volumes.checks import item_labels

        from .volumes import count

        for item in items:
            yield count(item_labels(item), self.segmentation.regions, item.spacing)

    def reduce(self, inputs: MetricInputs, run: Run) -> Iterable[Score | CaseRow | Replicates]:
        """Scores of each region and `rvr_joint`, and `rvr` of every case.

        The rows of real volumes name their split, so that a report can draw both distributions.
        Metrics are reduced per contestant: a run of several contains identical real rows several times,
        and a reader uses each case once.
        """
        from .scores import Measured

        measured = Measured.of(self._items(inputs), self.segmentation.regions, self.segmentation.name, self.config)
        return (*measured.scores(_common(inputs)), *measured.rows(inputs.generator))

    def _items(self, inputs: MetricInputs) -> dict[str, Sequence[Item]]:
        return {str(need.source): inputs.items.get(need, ()) for need in self.needs()}

    def aggregate(self, inputs: MetricInputs) -> Statistics | None:
        """Quantiles of each region's ratios, and how many real volumes lack it."""
        from .reference import aggregate

        return aggregate(self._items(inputs), len(self.segmentation.regions))

    def reduce_against(
        self, inputs: MetricInputs, arrays: Mapping[str, NDArray[np.float64]], run: Run
    ) -> Iterable[Score | CaseRow]:
        """What is of the samples alone, beside the real quantiles, and `rvr_absent`; distances need cases."""
        from .reference import Stored
        from .volumes import Volumes

        regions = self.segmentation.regions
        samples = Volumes.of(self._items(inputs)[Source.SAMPLES], len(regions))
        stored = Stored(samples, arrays, regions, self.segmentation.name, _common(inputs))
        return (*stored.scores(), *stored.rows(inputs.generator))


def _common(inputs: MetricInputs) -> dict[str, str]:
    return {"protocol": inputs.protocol_id, "generator": inputs.generator, "dataset": inputs.dataset}
