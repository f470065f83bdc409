"""The configuration of the FID family, its named protocols, and the notes of its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from medlord_bench.contracts import FrozenConfig, HUWindow, registry
from medlord_bench.contracts.results import Note, NoteKind, notes

Plane = Literal["axial", "coronal", "sagittal"]
Arithmetic = Literal["fixed-window", "maisi-compat"]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
SHARES = ("precision", "recall", "density", "coverage")

MAISI_WINDOW = (-1000, 1000)  # the window of the MAISI script

VARIANTS: dict[str, dict[str, Any]] = {
    "radimagenet": {"extractor": "radimagenet"},
    "maisi-compat": {"arithmetic": "maisi-compat", "extractor": "radimagenet"},
}

RULES = {
    "n": "the same n on every side: the fewest of samples, real train and real test volumes; seeded subsets of the rest",
    "failed": "counted in n; the value rests on the others, and on as many real volumes",
    "pooling": "slices of a plane pooled, one Gaussian a set; 'mean' is the mean of the planes",
    "interval": "delete-one jackknife by volume (samples) and patient (real), all planes at once; of fid formed for the "
    "fourth root of the distance and raised to the fourth power again",
    "floor": "the same reference volumes against as many real volumes of the other split",
    "kid": "unbiased squared MMD, kernel (x.y / d + 1)^3 averaged over the slices of each pair of units (sample, or real "
    "patient) and then over planes; pairs of different units only; p: one-sided, units relabelled over all planes at once",
    "fid_infinity": "distances of all units, two thirds and half of both sides against 1 / units, a line through them "
    "read at 0 (endlessly many); planes apart, then their mean",
    "prdc": "one vector a volume: the means over the slices of each plane, one after the other; one volume a patient; "
    "Euclidean balls to the k-th neighbour, border included",
}


class SetsConfig(FrozenConfig):
    """What every metric of equal sets of features has. minimum: volumes per side below which nothing is run."""

    extractor: str
    features: dict[str, Any] = Field(default_factory=dict, description="further settings of the extractor")
    planes: tuple[str, ...]
    minimum: int = Field(8, ge=2, description="volumes on each side below which the value is not run")
    permutations: int = Field(2000, ge=99, description="relabellings behind the p-value")
    seed: int = Field(0, description="seed of the subsets; one for all generators, so that they share the real volumes")

    def of_extractor(self) -> dict[str, Any]:
        """The extractor's configuration."""
        return dict(self.features)


class FamilyConfig(SetsConfig):
    """What `fid` and `fid3d` have in common."""

    hu_window: HUWindow = Field((-1000, 1000), description="HU window of real and synthetic volumes")
    neighbours: int = Field(3, ge=1, description="k of precision, recall, density and coverage")
    prdc_minimum: int = Field(
        16, ge=4, description="volumes (real: patients) on each side below which those four are not run"
    )

    @model_validator(mode="after")
    def _neighbours_fit(self) -> FamilyConfig:
        if self.prdc_minimum < 2 * (self.neighbours + 1):
            raise ValueError(
                f"prdc_minimum: at least {2 * (self.neighbours + 1)} for {self.neighbours} neighbours, "
                "or a ball around a volume contains half of its own set"
            )
        return self

    def of_extractor(self) -> dict[str, Any]:
        """The extractor's configuration: the window is the protocol's, not the extractor's own choice."""
        return {"hu_window": list(self.hu_window), **super().of_extractor()}


class FIDConfig(FamilyConfig):
    """The configuration of the distances of slices."""

    arithmetic: Arithmetic = Field(
        "fixed-window",
        description="one HU window for all, or the MAISI script's: each volume's own minimum and maximum",
    )
    extractor: str = "imagenet"
    planes: tuple[Plane, ...] = Field(PLANES, min_length=1)
    infinity_minimum: int = Field(
        16, ge=16, description="volumes (real: patients) on each side below which fid_infinity is not run"
    )

    @model_validator(mode="after")
    def _consistent(self) -> FIDConfig:
        if len(set(self.planes)) != len(self.planes):
            raise ValueError("planes: each plane may be named once")
        if self.arithmetic == "maisi-compat":
            self._is_maisi()
        return self

    def _named(self) -> Mapping[str, Any]:
        """The extractor's own variant of this name."""
        plugin = registry.load("extractors", self.extractor)
        return getattr(plugin, "variants", {}).get(self.arithmetic, {})

    def _is_maisi(self) -> None:
        """The settings implied by the name cannot be changed."""
        named = self._named()
        if not named:
            raise ValueError(f"extractor: {self.extractor} has no maisi-compat, expected radimagenet")
        changed = [f"features.{name}" for name, value in named.items() if self.features.get(name, value) != value]
        fixed = {"hu_window": MAISI_WINDOW, "planes": PLANES}
        changed += [name for name, value in fixed.items() if getattr(self, name) != value]
        if changed:
            raise ValueError(
                f"arithmetic: maisi-compat fixes {', '.join(changed)}; remove that setting, or use fid:radimagenet"
            )

    def of_extractor(self) -> dict[str, Any]:
        """Of a named arithmetic, the extractor's own variant of this name too."""
        fixed = self._named() if self.arithmetic == "maisi-compat" else {}
        return {**fixed, **super().of_extractor()}


def backbone_note(config: FIDConfig, backbone: str) -> tuple[Note, ...]:
    """The backbone of a value, and the values with which it is comparable."""
    kind: NoteKind = "fallback" if config.extractor == "imagenet" else "context"
    if config.arithmetic == "maisi-compat":
        compares = (
            ", the MAISI script's arithmetic: comparable with published values only at the same real volumes, n, voxel "
            "spacing and slab"
        )
    elif config.extractor == "imagenet":
        compares = ", not RadImageNet: not comparable with published values"
    elif config.extractor == "radimagenet":
        compares = ", one HU window for all: not comparable with the MAISI script's values (use fid:maisi-compat)"
    else:
        compares = ": comparable with values of the same protocol id only"
    return (*notes(kind, f"features of {backbone}{compares}"), *notes("caution", "interval for one checkpoint"))
