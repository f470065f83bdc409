"""The configuration of the radiomic distance, its named protocols, and the notes of its numbers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from medlord_bench.contracts import DataProtocol
from medlord_bench.contracts.results import Note, notes

from .config import RULES, SetsConfig
from .volume_config import WHOLE, assumed_spacing

VARIANTS: dict[str, dict[str, Any]] = {
    "hu": {"intensities": "hu"},
}

RULES_RADIOMIC = {
    **{name: RULES[name] for name in ("n", "floor")},
    "failed": "counted in n; so is a volume with a feature that is not a number; the value rests on the others, and on as "
    "many real volumes",
    "frd": "natural logarithm of the squared Fréchet distance; features in standard deviations of the real volumes about "
    "their mean, without those that are constant there",
    "interval": "delete-one jackknife by volume and patient, units formed anew; of the fourth root of the squared distance",
    "p": "one-sided, volumes relabelled, units formed anew; one volume a patient",
}


class FRDConfig(SetsConfig):
    """The configuration of the radiomic distance. extractor: one whose description names its features."""

    extractor: str = "radiomics"
    intensities: Literal["normalised", "hu"] = Field(
        "normalised", description="normalised: each volume to mean 0 and one standard deviation, as published; hu: kept"
    )
    planes: tuple[Literal["volume"], ...] = (WHOLE,)
    permutations: int = Field(999, ge=99, description="relabellings behind the p-value")

    def of_extractor(self) -> dict[str, Any]:
        return {"intensities": self.intensities, **super().of_extractor()}


def about_library(config: FRDConfig, library: str, data: DataProtocol) -> tuple[Note, ...]:
    """The library behind a value, its form, and what is assumed of the voxel size."""
    form = {
        "normalised": "intensities of each volume normalised as in frd-score",
        "hu": "HU kept: not comparable with values of frd-score",
    }
    return (
        *notes("context", f"features of {library}; {form[config.intensities]}"),
        *notes("caution", assumed_spacing(data), "interval for one checkpoint"),
    )
