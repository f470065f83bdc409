"""All quantities of the family against one reference, from features that are read once."""

from __future__ import annotations

from collections.abc import Iterator

from .config import FIDConfig
from .frechet import floors, frechet
from .infinity import infinity
from .kernel import Kernels
from .measured import Measured
from .neighbours import shares
from .sides import Features, Sides


class Comparisons:
    """The samples against either reference; shared parts (features, kernels, floors) are computed once."""

    def __init__(self, sides: Sides, config: FIDConfig) -> None:
        self.sides, self.config = sides, config
        self.features = Features(sides, config.planes)
        self.kernels = Kernels(self.features, config)
        self.floors = floors(self.features, sides)

    def against(self, split: str) -> Iterator[Measured]:
        """Every number against "train" or "test"."""
        yield from frechet(self.features, self.sides, split, self.floors)
        yield from self.kernels.kid(self.sides, split)
        yield from infinity(self.features, self.sides, split, self.config)
        yield from shares(self.features, self.sides, split, self.config)
