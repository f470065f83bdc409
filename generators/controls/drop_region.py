"""The control with a missing organ: unseen real volumes, and volumes painted to the mask, without one region."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from medlord_bench.contracts import (
    Capability,
    Cohort,
    DataProtocol,
    Dependencies,
    Failure,
    Purpose,
    Request,
    Run,
    Stage,
    Volume,
)
from medlord_bench.contracts.regions import CARDIAC

from .base import VOLUMES, Control, ControlConfig, require_region
from .oracle import TISSUE, Oracle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .kept import Kept


class DropRegionConfig(ControlConfig):
    """The missing region."""

    region: str = Field("aorta", description="the region that all samples lack")


class DropRegion(Control):
    """Unseen real volumes with one organ painted over by the soft tissue around it, and, for a mask, the volumes
    of the `oracle` without that organ. Variants: the organ."""

    name: ClassVar[str] = "drop-region"
    Config: ClassVar[type[DropRegionConfig]] = DropRegionConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {region: {"region": region} for region in (*CARDIAC, "lungs")}
    capabilities: frozenset[Capability] = frozenset({"unconditional", "conditional"})
    with_labels: ClassVar[bool] = True

    def __init__(self, config: DropRegionConfig) -> None:
        super().__init__(config)
        self.oracle = Oracle(config)

    def check(self, data: DataProtocol) -> None:
        """Raises `UserError` if there are no masks, or none of the region."""
        super().check(data)
        require_region(self.name, self.config.region, data)

    def stages(self) -> Sequence[Stage]:
        return (*super().stages(), *self.oracle.stages())

    def dependencies(self, purpose: Purpose) -> Dependencies:
        return Dependencies((TISSUE if purpose == "sample-conditional" else VOLUMES,), ("region",))

    def train(self, stage: Stage, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        trainer = self.oracle.train if stage.name == TISSUE else super().train
        return trainer(stage, data, inputs, out, run)

    def sample(self, weights: Mapping[str, Path], requests: Sequence[Request], run: Run) -> Iterator[Volume | Failure]:
        if TISSUE not in weights:
            yield from super().sample(weights, requests, run)
            return
        from .tissue import without_label

        region = self.config.region
        for request in requests:
            assert request.condition is not None
            lacking = replace(request, condition=without_label(request.condition, region))
            yield from self.oracle.sample(weights, [lacking], run)

    def draw(self, kept: Kept, request: Request) -> NDArray[Any] | Failure:
        from .tissue import painted_over

        hu = painted_over(kept.hu(request.index), kept.label_map(request.index), self.config.region, request.seed)
        return Failure("no soft tissue to paint the region with") if hu is None else hu
