"""The configuration of the audit, and the definition of a copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from medlord_bench.contracts import FrozenConfig, HUWindow

Rule = Literal["conformal", "dar", "masks"]
VARIANTS: Mapping[str, Mapping[str, Any]] = {"dar": {"rule": "dar"}, "masks": {"rule": "masks"}}


class MemorisationConfig(FrozenConfig):
    """What is compared, and the definition of a copy."""

    rule: Rule = Field(
        "conformal",
        description="the threshold of a copy: `conformal`, from left-out training patients, with the local stage; `dar`, "
        "the 95th percentile of training to nearest validation correlations, of whole volumes; `masks`, samples that follow "
        "training masks against the patients of these masks, from samples that follow test masks",
    )
    hu_window: HUWindow = Field((-1000, 1000), description="HU window of real and synthetic volumes")
    cells: int = Field(40, ge=16, description="boxes along the longest axis of the compared thumbnail")
    local_cells: int = Field(64, ge=32, description="boxes along the longest axis of the picture of the local stage")
    neighbours: int = Field(5, ge=2, description="nearest patients: the first is compared with the others")
    calibration: int = Field(
        200, ge=20, description="training volumes that are left out for the threshold; of more, evenly spaced ones"
    )
    rate: float = Field(0.05, gt=0, lt=1, description="fraction of unseen patients that may be classified as copies")
    largest: float = Field(
        0.5, gt=0, lt=1, description="largest threshold: a copy is twice as close to one patient as to others"
    )
    minimum: int = Field(8, ge=4, description="training volumes below which it is not run")
