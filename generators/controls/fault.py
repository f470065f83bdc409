"""The control with one fault of a list: unseen real volumes, spoilt in HU, in their planes, or in places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from pydantic import Field

from medlord_bench.contracts import Failure, Request
from medlord_bench.util import seeds

from .base import Control, ControlConfig

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from .kept import Kept

Kind = Literal[
    "gain",
    "gamma",
    "bias",
    "noise",
    "soft-bones",
    "coarse",
    "jitter",
    "shuffled-slabs",
    "slice-offsets",
    "checkerboard",
    "octants",
    "tiles",
    "nodules",
    "no-vessels",
]
STRENGTHS: Mapping[str, tuple[str, ...]] = {
    "gain": ("1.05", "1.1"),
    "gamma": ("0.9",),
    "bias": ("50", "150"),
    "noise": ("2",),
    "soft-bones": ("40",),
    "coarse": ("2",),
    "jitter": ("3",),
    "shuffled-slabs": ("8",),
    "slice-offsets": ("30",),
    "checkerboard": ("30",),
    "octants": ("60",),
    "tiles": ("30",),
    "nodules": ("12",),
    "no-vessels": ("1",),
}


class FaultConfig(ControlConfig):
    """The fault and its strength."""

    kind: Kind = Field("gain", description="the fault: " + ", ".join(get_args(Kind)))
    strength: float = Field(1.05, gt=0, description="its strength, in the unit of the fault")


class Fault(Control):
    """Unseen real volumes with one fault. Variants: KIND-STRENGTH."""

    name: ClassVar[str] = "fault"
    Config: ClassVar[type[FaultConfig]] = FaultConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"{kind}-{text}": {"kind": kind, "strength": float(text)} for kind, texts in STRENGTHS.items() for text in texts
    }

    def draw(self, kept: Kept, request: Request) -> NDArray[Any] | Failure:
        made = self._spoilt(kept.hu(request.index), seeds.numpy_rng(request.seed, "fault", self.config.kind))
        return Failure(f"{self.config.kind}: the volume has nothing to spoil") if made is None else made

    def _spoilt(self, hu: NDArray[Any], rng: Generator) -> NDArray[Any] | None:
        from .faults import intensity, local, sampling

        modules = (intensity, sampling, local)
        name = self.config.kind.replace("-", "_")
        change = next(getattr(module, name) for module in modules if hasattr(module, name))
        spoilt: NDArray[Any] | None = change(hu.astype("float32"), self.config.strength, rng)
        return spoilt
