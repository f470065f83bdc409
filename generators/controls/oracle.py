"""The control with perfect adherence: volumes painted exactly to the mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from medlord_bench.contracts import (
    Capability,
    Cohort,
    DataProtocol,
    Dependencies,
    Failure,
    Purpose,
    Request,
    Run,
    Split,
    Stage,
    Volume,
)
from medlord_bench.errors import UserError

from .base import Control

TISSUE = "tissue"


class Oracle(Control):
    """Volumes painted exactly to the mask, each tissue in the HU of the training set: the highest possible
    adherence."""

    name: ClassVar[str] = "oracle"
    capabilities: frozenset[Capability] = frozenset({"conditional"})
    split: ClassVar[Split] = "train"

    def check(self, data: DataProtocol) -> None:
        """Raises `UserError` if there are no masks to paint, or no training case to measure tissue HU."""
        super().check(data)
        if data.masks == "none" or not data.condition_regions:
            raise UserError(
                f"control {self.name}: {data.name} has no masks to paint; expected masks: "
                "give them (dataset.masks), or remove this control"
            )

    def available(self, data: DataProtocol) -> int | None:
        """Any number: one for each mask."""
        return None

    def stages(self) -> Sequence[Stage]:
        return (Stage(TISSUE, ("volumes",)),)

    def dependencies(self, purpose: Purpose) -> Dependencies:
        return Dependencies((TISSUE,))

    def train(self, stage: Stage, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        """HU statistics of each label in the first training cases, in order of case id."""
        from .tissue import measure

        return measure(data, sorted(data.ids("train"))[: self.config.volumes], out / "weights", run)

    def sample(self, weights: Mapping[str, Path], requests: Sequence[Request], run: Run) -> Iterator[Volume | Failure]:
        from .kept import rounded
        from .tissue import Tissue

        tissue = Tissue.read(weights[TISSUE])
        for request in requests:
            if request.condition is None:
                raise UserError(f"control {self.name}: paints masks, but the request has no mask")
            hu = tissue.paint(request.condition, request.seed)
            yield Volume(rounded(hu, request.grid.hu_window), request.condition.affine)
