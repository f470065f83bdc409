"""`fid3d`: distances of one vector for each whole volume, from a 3D network, against train and test, with floors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from medlord_bench.contracts import MetricInputs
from medlord_bench.contracts.metrics import Quantity
from medlord_bench.contracts.results import Note

from .metric import Family
from .volume_config import RULES_3D, VARIANTS, FID3DConfig, about_backbone
from .volume_quantities import QUANTITIES

if TYPE_CHECKING:
    from .measured import Measured
    from .sides import Sides


class FID3D(Family):
    """Kernel and Fréchet distance and coverage of 3D features of whole volumes against train and test, with floors.

    `kid3d` is the one to read: with fewer volumes than features most of the value of `fid3d` is bias.
    """

    Config: ClassVar[type[FID3DConfig]] = FID3DConfig
    version: ClassVar[int] = 1
    name: ClassVar[str] = "fid3d"
    rules: ClassVar[Mapping[str, str]] = RULES_3D
    default: ClassVar[int | None] = None
    quantities: ClassVar[tuple[Quantity, ...]] = QUANTITIES
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = VARIANTS
    config: FID3DConfig

    def backbone(self, inputs: MetricInputs) -> tuple[Note, ...]:
        return about_backbone(self.named_backbone(), inputs.protocol)

    def comparisons(self, sides: Sides) -> Callable[[str], Iterable[Measured]]:
        from .volume_compare import VolumeComparisons

        return VolumeComparisons(sides, self.config).against
