"""All quantities of whole volumes against one reference, from vectors that are read once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from medlord_bench import stats
from medlord_bench.contracts.results import notes

from .frechet import floors, frechet
from .kernel import Kernels
from .measured import Measured, by_unit, too_few_units
from .neighbours import shares
from .sides import OTHER, Features, Sides
from .volume_config import WHOLE, FID3DConfig

SUFFIX = "3d"  # of the quantities, so that a value of volumes is never taken for one of slices


class VolumeComparisons:
    """The samples against either reference; features, kernels and floors are computed once."""

    def __init__(self, sides: Sides, config: FID3DConfig) -> None:
        self.sides, self.config = sides, config
        self.features = Features(sides, (WHOLE,))
        self.kernels = Kernels(self.features, config)
        self.floors = floors(self.features, sides)

    def against(self, split: str) -> Iterator[Measured]:
        """Every number against "train" or "test"."""
        for one in self._family(split):
            if not one.region:  # a single array: its row says nothing more
                yield replace(one, metric=one.metric + SUFFIX)

    def _family(self, split: str) -> Iterator[Measured]:
        yield from (
            self._cautioned(one)
            for one in frechet(self.features, self.sides, split, self.floors)
            if one.metric == "fid"
        )
        yield from self.kernels.kid(self.sides, split)
        yield self._mmd(split)
        yield from shares(self.features, self.sides, split, self.config)

    def _cautioned(self, one: Measured) -> Measured:
        """`fid` with what a covariance of fewer volumes than features means."""
        width, n = self.features.vectors("samples").shape[1], self.sides.ok
        if n > width:
            return one
        text = (
            f"{n} volumes, {width} features: each covariance has rank {n - 1}, and most of the value is its bias; read "
            "kid3d, or this beside its floor"
        )
        return replace(one, notes=(*one.notes, *notes("caution", text)))

    def _mmd(self, split: str) -> Measured:
        few = too_few_units(self.features, split)
        if few:
            return Measured("mmd", reason=few, n_reference=self.sides.ok)
        found = self._between("samples", split)
        floor, note = None, self.sides.floor_note(split)
        if self.sides.has_floor and not too_few_units(self.features, OTHER[split]):
            real = self._between("train", "test")
            floor, note = real.value, f"{note} (p {real.p:.3g})"
        return Measured(
            "mmd",
            value=found.value,
            low=found.low,
            high=found.high,
            interval="95 % delete-one jackknife by volume and patient",
            p=found.p,
            p_of=f"samples and real {split} volumes of one distribution: {found.permutations} relabellings of volumes",
            n_reference=self.sides.ok,
            floor=floor,
            floor_note=note,
            without=by_unit(self.features, split, found.without_x, found.without_y),
        )

    def _between(self, one: str, other: str) -> stats.TwoSample:
        first, second = (self.features.vectors(name) for name in (one, other))
        pairs = stats.gaussian_kernel(np.concatenate([first, second]))
        return stats.two_sample(
            pairs, len(first), self.config.seed, self.config.permutations, "gaussian kernel distance"
        )
