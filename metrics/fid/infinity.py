"""FID-infinity: the Fréchet distance extrapolated to infinitely many volumes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from medlord_bench import stats
from medlord_bench.contracts.results import notes

from .config import FIDConfig
from .measured import Measured, too_few_units
from .sides import Features, Sides


def infinity(features: Features, sides: Sides, split: str, config: FIDConfig) -> Iterator[Measured]:
    """`fid_infinity` against `split`: the mean of the planes first, then each plane; or the reason why not."""
    few = too_few_units(features, split, config.infinity_minimum)
    if few:
        yield Measured("fid_infinity", reason=few, n_reference=sides.ok)
        return
    found = {
        plane: stats.frechet_infinity(features.groups("samples", plane), features.groups(split, plane), config.seed)
        for plane in features.planes
    }
    bend = max(one.bend for one in found.values())
    line = f"extrapolated linearly; points deviate from the line by up to {bend:.0%} of its drop"
    values = {"": [one.value for one in found.values()], **{plane: [one.value] for plane, one in found.items()}}
    drawn = {"": [one.distances for one in found.values()], **{plane: [one.distances] for plane, one in found.items()}}
    draws = {"": [one.draws for one in found.values()], **{plane: [one.draws] for plane, one in found.items()}}
    sizes = (next(iter(found.values())).shares * len(features.units("samples"))).tolist()
    for region in values:
        value, distances = float(np.mean(values[region])), np.mean(drawn[region], axis=0).tolist()
        points = tuple(zip(sizes, distances, strict=True))
        each = np.mean(draws[region], axis=0)
        noise = f"standard error of the {len(each)} random divisions alone {each.std(ddof=1) / len(each) ** 0.5:.2g}"
        about = notes("caution", line, f"no interval; {noise}")
        yield Measured("fid_infinity", region, value, n_reference=sides.ok, notes=about, points=points)
