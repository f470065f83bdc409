"""The configuration of the distances of whole volumes, its named protocols, and the notes of its numbers."""

from __future__ import annotations

from typing import Any, Literal

from medlord_bench.contracts import DataProtocol
from medlord_bench.contracts.results import Note, notes

from .config import RULES, FamilyConfig

WHOLE: Literal["volume"] = "volume"  # the array of an extractor that gives one vector for each volume

VARIANTS: dict[str, dict[str, Any]] = {
    "medicalnet": {"extractor": "medicalnet"},
    "ctfm": {"extractor": "ctfm", "hu_window": (-1024, 2048)},
}

RULES_3D = {
    **{name: RULES[name] for name in ("n", "failed", "floor", "prdc")},
    "features": "one vector a volume",
    "fid3d": "squared Fréchet distance of the vectors; interval: delete-one jackknife by volume and patient, of the root",
    "kid3d": "unbiased squared MMD, kernel (x.y / d + 1)^3, averaged over the volumes of each pair of units; pairs of "
    "different units only; p: one-sided, units relabelled",
    "mmd3d": "unbiased squared MMD, mean of seven Gaussian kernels, widths 1/8 to 8 of the median distance of both sets "
    "together; one volume a patient; p as kid3d",
    "prdc": "one volume a patient; Euclidean balls to the k-th neighbour, border included",
}


class FID3DConfig(FamilyConfig):
    """The configuration of the distances of whole volumes. extractor: one that gives one vector for each volume."""

    extractor: str = "ct3d"
    planes: tuple[Literal["volume"], ...] = (WHOLE,)


def assumed_spacing(data: DataProtocol) -> str:
    """What is assumed of the voxel size; empty if the grid has one."""
    if data.grid.spacing:
        return ""
    return "the grid has no voxel size: the median of the training volumes is assumed for all"


def about_backbone(backbone: str, data: DataProtocol) -> tuple[Note, ...]:
    """The network behind a value, and what is assumed of the voxel size."""
    return (
        *notes("context", f"features of {backbone}: comparable with values of the same protocol id only"),
        *notes("caution", assumed_spacing(data), "interval for one checkpoint"),
    )
