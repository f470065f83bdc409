"""`adherence`: do conditional samples follow their masks? DSC, NSD and HD95 of re-segmented samples against them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from medlord_bench.contracts import DataProtocol, Item, Made, MetricInputs, Need, Run, Source, State
from medlord_bench.contracts.metrics import MetricProtocol, Quantity
from medlord_bench.contracts.results import CaseRow, Score, notes
from medlord_bench.contracts.segmentation import Segmentation, SegmentationConfig
from medlord_bench.errors import UserError

from .quantities import QUANTITIES

SOURCES = (Source.CONDITIONAL, Source.REAL_TEST, Source.RECONSTRUCTIONS)
RULES = {
    "reference": "the mask that the sample was asked to follow; for the ceilings, the case's own mask",
    "surface": "voxels with a face neighbour outside the region (beyond the grid is outside); distances between centres",
    "nsd": "share of all surface voxels of both within tolerance_mm of the other surface",
    "hd95": "95th percentile (linear) of the surface distances each way, the larger of both; mm",
    "implementation": "own (SciPy's Euclidean distance transform), equal to MONAI's per-case functions; see version",
    "summary": "per region the median over patients of each patient's median case",
    "all regions": "the mean of the regions' medians: per structure first, then across",
    "interval": "95 % order statistics of the median; all regions: percentile bootstrap over patients",
    "ceiling": "the same of real test images under the same segmenter, against their own masks",
}


class AdherenceConfig(SegmentationConfig):
    """The segmenter of the samples, and the compared regions."""

    tolerance_mm: float = Field(3.0, gt=0, description="of NSD; 3 mm is TotalSegmentator's (Wasserthal et al. 2023)")

    def for_data(self, data: DataProtocol) -> AdherenceConfig:
        """Fill unset fields from the data set's protocol."""
        regions = data.adherence_regions if self.regions is None else self.regions
        return self.model_copy(update={"segmenter": self.segmenter or data.segmenter, "regions": regions})


class Adherence:
    """DSC, NSD and HD95 of re-segmented conditional samples against their masks, with the segmenter's own ceiling.

    DSC and NSD higher is better, HD95 (mm) lower. Compare them with the ceiling: no generator can be expected to exceed
    it.
    """

    Config: ClassVar[type[AdherenceConfig]] = AdherenceConfig
    version: ClassVar[int] = 1
    default: ClassVar[int | None] = 3
    quantities: ClassVar[tuple[Quantity, ...]] = QUANTITIES
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(self, config: AdherenceConfig) -> None:
        self.config = config
        self.segmentation = Segmentation(config, "adherence")

    def needs(self) -> Sequence[Need]:
        """Label maps of the conditional samples; for the ceilings, of the real test images and reconstructions."""
        return [Need(source, Made.STATES, segmenter=self.segmentation.name) for source in SOURCES]

    def plugin_config(self) -> Mapping[str, Any]:
        return self.config.segmenter_settings

    def protocol(self, data: DataProtocol) -> MetricProtocol:
        """Everything that decides its numbers besides the data."""
        from medlord_bench.overlap.cases import POLICY

        text: dict[str, Any] = {
            "segmenter": self.segmentation.described(data),
            "regions": list(self.segmentation.regions),
            "tolerance_mm": self.config.tolerance_mm,
            "rules": RULES,
            "policy": POLICY,
        }
        return MetricProtocol(label=self.segmentation.name, text=text)

    def extract(self, items: Iterable[Item], run: Run) -> Iterator[State]:
        """Per region DSC, NSD, HD95 and voxels on both sides: see `overlap.compare`. A case may have no mask."""
        from medlord_bench.overlap.compare import compare
        from medlord_bench.volumes.checks import item_labels, item_reference

        for item in items:
            made = item_labels(item)
            mask = None if item.reference is None else item_reference(item)
            if mask is not None and made.shape != mask.shape:
                raise UserError(
                    f"{item.path}: grid {made.shape}, but its mask {item.reference} has {mask.shape}; "
                    "expected one grid: segment it again on the protocol's"
                )
            yield compare(made, mask, self.segmentation.regions, item.spacing, self.config.tolerance_mm)

    def reduce(self, inputs: MetricInputs, run: Run) -> Iterable[Score | CaseRow]:
        """`dsc`, `nsd`, `hd95` of each region and of all, the segmenter's ceilings, and every case."""
        from .scores import Sources

        items = {str(need.source): inputs.items.get(need, ()) for need in self.needs()}
        common = {
            "protocol": inputs.protocol_id,
            "generator": inputs.generator,
            "dataset": inputs.dataset,
            "reference": "test",
        }
        sources = Sources.of(items, self.segmentation.regions, self.segmentation.name, self.config.tolerance_mm)
        reason = sources.reason()
        if reason:
            return sources.not_run(reason, common)
        return (
            *sources.scores(common, notes("caution", self._circular(inputs.protocol))),
            *sources.rows(inputs.generator),
        )

    def _circular(self, data: DataProtocol) -> str:
        """The caution if the segmenter of the masks also scores the samples."""
        if not data.masks.startswith(self.segmentation.name):
            return ""
        return f"the masks were made by {self.config.segmenter} too: errors that it repeats are not detected (circular)"
