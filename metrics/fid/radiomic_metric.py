"""`frd`: the radiomic Fréchet distance of whole volumes, as published or with HU kept, against train and test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from medlord_bench.contracts import Item, MetricInputs
from medlord_bench.contracts.metrics import Quantity
from medlord_bench.contracts.results import Note

from .metric import Family
from .radiomic_config import RULES_RADIOMIC, VARIANTS, FRDConfig, about_library
from .radiomic_quantities import QUANTITIES

if TYPE_CHECKING:
    from .measured import Measured
    from .sides import Sides


class FRD(Family):
    """Logarithm of the squared Fréchet distance of radiomic features of whole volumes, with p-value and floor.

    Konz, Osuala et al. 2026 (arXiv 2412.01496), as frd-score 1.0.1 computes it. Lower is better; the logarithm may be
    negative, and equal sets are at the floor, not at 0.
    """

    Config: ClassVar[type[FRDConfig]] = FRDConfig
    version: ClassVar[int] = 1
    name: ClassVar[str] = "frd"
    rules: ClassVar[Mapping[str, str]] = RULES_RADIOMIC
    default: ClassVar[int | None] = None
    quantities: ClassVar[tuple[Quantity, ...]] = QUANTITIES
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = VARIANTS
    config: FRDConfig

    def label(self) -> str:
        return self.config.intensities

    def backbone(self, inputs: MetricInputs) -> tuple[Note, ...]:
        return about_library(self.config, self.named_backbone(), inputs.protocol)

    def comparisons(self, sides: Sides) -> Callable[[str], Iterable[Measured]]:
        from .radiomic_compare import RadiomicComparisons, names_of

        return RadiomicComparisons(sides, self.config, names_of(self._extractor().preprocessing)).against

    def _items(self, inputs: MetricInputs) -> dict[str, Sequence[Item]]:
        """A volume with a feature that is not a number counts as failed."""
        from .radiomic_compare import missing, names_of

        names = names_of(self._extractor().preprocessing)
        return {
            source: [self._judged(item, missing(item, names)) for item in items]
            for source, items in super()._items(inputs).items()
        }

    @staticmethod
    def _judged(item: Item, reason: str) -> Item:
        return replace(item, path=None, failed=reason) if reason else item
