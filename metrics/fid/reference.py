"""`fid` without real cases: a Gaussian for each plane and real split, and the distance of samples to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medlord_bench import stats
from medlord_bench.contracts import Item
from medlord_bench.contracts.reference import NEEDS_CASES, Statistics
from medlord_bench.contracts.results import notes

from .config import FIDConfig
from .frechet import floors
from .measured import LEAST_UNITS, Measured, heavy_tails
from .quantities import QUANTITIES
from .sides import OTHER, Features, Sides, subset

NONE: stats.Vector = np.empty(0)
Arrays = Mapping[str, stats.Vector]
INTERVAL = "95 % delete-one jackknife by volume of the samples alone, computed for the fourth root"
FIXED = "interval without the variation of the real volumes: they are known by their mean and covariance alone"


def aggregate(items: Mapping[str, Sequence[Item]], config: FIDConfig) -> Statistics | None:
    """The mean and covariance of each plane and split, of the real volumes that as many or more samples are measured
    against; the floor; and the counts behind them."""
    sides = Sides.of_real(items, config.minimum, config.seed)
    if sides.n < config.minimum:
        return None
    features = Features(sides, config.planes)
    arrays = {"volumes": np.array([sides.n]), "available": np.array([sides.counts[split] for split in OTHER])}
    held = [split for split, chosen in sides.real.items() if len(chosen) == sides.n]
    for split in held:
        for plane in config.planes:
            fitted = stats.Gaussian.of(np.concatenate(features.groups(split, plane))).reduced()
            arrays |= {f"{split}/{plane}/mean": fitted.mean, f"{split}/{plane}/factor": fitted.factor}
            arrays[f"{split}/{plane}/slices"] = np.array([sum(map(len, features.groups(split, plane)))])
    floor = floors(features, sides)
    if floor:
        arrays["floor"] = np.array([floor[region] for region in ("", *config.planes)])
    patients = min(len(features.units(split)) for split in held)
    return Statistics({name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}, patients)


@dataclass(frozen=True, eq=False)
class Stored:
    """The real volumes of a reference file, and the samples that are measured against them."""

    arrays: Arrays
    config: FIDConfig
    sides: Sides
    given: int

    @classmethod
    def of(cls, arrays: Arrays, samples: Sequence[Item], config: FIDConfig) -> Stored:
        n = int(arrays["volumes"][0])
        chosen = subset(samples, n, config.seed, "samples")
        failed = sum(item.path is None for item in samples)
        counts = {"samples": len(samples), "failed samples": failed}
        counts |= {split: int(count) for split, count in zip(OTHER, arrays["available"], strict=True)}
        lost = sum(item.path is None for item in chosen)
        return cls(arrays, config, Sides(chosen, {}, len(chosen), lost, config.minimum, counts), n)

    def _reason(self, split: str) -> str:
        """Why there can be no value; empty if there is one."""
        if f"{split}/{self.config.planes[0]}/mean" not in self.arrays or not self.sides.counts["samples"]:
            return self.sides.reason(split)
        equal = f"the reference has {self.given} real volumes, and n must be equal on both sides"
        if self.sides.n < self.given:
            return f"{NEEDS_CASES}: {self.sides.n} samples; {equal}: give at least {self.given} samples"
        if self.sides.failed:
            lost = f"{self.sides.failed} of the {self.sides.n} measured samples failed"
            return f"{NEEDS_CASES}: {lost}; {equal}: make these samples again"
        return ""

    def measured(self) -> Iterator[tuple[str, Iterable[Measured]]]:
        """The numbers against each reference: `fid`, and the reason why there are no others."""
        features: Features | None = None
        for split in OTHER:
            reason = self._reason(split)
            if reason:
                yield split, [Measured(one.name, reason=reason) for one in QUANTITIES]
                continue
            features = features or Features(self.sides, self.config.planes)
            others = [Measured(one.name, reason=NEEDS_CASES) for one in QUANTITIES if one.name != "fid"]
            yield split, (*self._fid(features, split), *others)

    def _fid(self, features: Features, split: str) -> Iterator[Measured]:
        """`fid`, the mean of the planes first, then each plane; the interval leaves samples out."""
        planes = {plane: self._plane(features, split, plane) for plane in features.planes}
        mean = float(np.mean([one.value for one in planes.values()]))
        every = {"": stats.FrechetJackknife(mean, np.mean([one.without_x for one in planes.values()], axis=0), NONE)}
        floor = dict(zip(("", *features.planes), self.arrays.get("floor", NONE).tolist(), strict=False))
        floor_note = self.sides.floor_note(split) if floor else f"no floor: too few real {OTHER[split]} volumes"
        few = len(features.units("samples")) < LEAST_UNITS
        about = notes("caution", f"no interval: fewer than {LEAST_UNITS} samples" if few else FIXED)
        for region, one in {**every, **planes}.items():
            fid = Measured("fid", region, one.value, n_reference=self.given, floor=floor.get(region), notes=about)
            fid = replace(fid, floor_note=floor_note)
            if not few:
                found = stats.jackknife(one.value, one.without_x, squared=True)
                without = dict(zip(features.units("samples"), one.without_x.tolist(), strict=True))
                about_tails = (*about, *heavy_tails(one.value, (without,), squared=True))
                fid = replace(fid, low=found.low, high=found.high, interval=INTERVAL, notes=about_tails)
            yield fid

    def _plane(self, features: Features, split: str, plane: str) -> stats.FrechetJackknife:
        reference = stats.Gaussian(*(self.arrays[f"{split}/{plane}/{part}"] for part in ("mean", "factor")))
        return stats.frechet_jackknife_to(features.groups("samples", plane), reference)
