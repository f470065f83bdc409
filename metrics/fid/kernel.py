"""KID, the unbiased counterpart: one kernel pass per plane gives every comparison, its jackknife, test and floor."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from medlord_bench import stats

from .config import FamilyConfig
from .measured import Measured, by_unit, heavy_tails, too_few_units
from .sides import OTHER, Features, Sides

SETS = ("samples", *OTHER)


class Kernels:
    """The kernel averaged over the slices of each pair of units of all sets, for each plane and their mean ("")."""

    def __init__(self, features: Features, config: FamilyConfig) -> None:
        self.features, self.config = features, config
        found = {
            plane: stats.mean_kernel([rows for name in SETS for rows in features.groups(name, plane)])
            for plane in features.planes
        }
        self.matrices = {"": np.mean(list(found.values()), axis=0), **found}
        ends = np.cumsum([len(features.units(name)) for name in SETS])
        self.places = dict(zip(SETS, np.split(np.arange(ends[-1]), ends[:-1]), strict=True))
        self._floors: dict[str, stats.TwoSample] = {}

    def between(self, region: str, name: str, other: str) -> stats.TwoSample:
        """KID of two of the sets, in a plane or (empty) as the mean of the planes."""
        both = np.concatenate([self.places[name], self.places[other]])
        pairs = self.matrices[region][np.ix_(both, both)]
        config = self.config
        return stats.two_sample(pairs, len(self.places[name]), config.seed, config.permutations, "kernel distance")

    def floor(self, region: str, sides: Sides, split: str) -> tuple[float | None, str]:
        """Real train against real test, computed once for both references, with its description or the reason why there
        is none."""
        if not sides.has_floor:
            return None, sides.floor_note(split)
        if few := too_few_units(self.features, OTHER[split]):
            return None, f"no floor: {few}"
        if region not in self._floors:
            self._floors[region] = self.between(region, "train", "test")
        found = self._floors[region]
        return found.value, f"{sides.floor_note(split)} (p {found.p:.3g})"

    def kid(self, sides: Sides, split: str) -> Iterator[Measured]:
        """`kid` against `split`: the mean of the planes first, then each plane."""
        few = too_few_units(self.features, split)
        if few:
            yield Measured("kid", reason=few, n_reference=sides.ok)
            return
        for region in self.matrices:
            found = self.between(region, "samples", split)
            floor, floor_note = self.floor(region, sides, split)
            without = by_unit(self.features, split, found.without_x, found.without_y)
            yield Measured(
                "kid",
                region,
                value=found.value,
                low=found.low,
                high=found.high,
                interval="95 % delete-one jackknife by volume and patient",
                p=found.p,
                p_of=f"samples and real {split} volumes of one distribution: {found.permutations} relabellings of volumes",
                n_reference=sides.ok,
                floor=floor,
                floor_note=floor_note,
                notes=heavy_tails(found.value, without),
                without=without,
            )
