"""The Fréchet distance of each plane and their mean, with jackknife interval, debiased value and floor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from medlord_bench import stats
from medlord_bench.contracts.results import notes

from .measured import Measured, by_unit, heavy_tails, too_few_units
from .sides import Features, Sides

INTERVAL_METHOD = "95 % delete-one jackknife by volume and patient"


@dataclass(frozen=True)
class _Plane:
    """A distance in one plane, or the mean over planes, with each sample and each patient left out."""

    value: float
    without_samples: stats.Vector
    without_real: stats.Vector


def floors(features: Features, sides: Sides) -> dict[str, float]:
    """Real train against real test in each plane and their mean (""); the same for both references."""
    if not sides.has_floor:
        return {}
    found = {
        plane: stats.frechet_distance(*(np.concatenate(features.groups(split, plane)) for split in sides.real))
        for plane in features.planes
    }
    return {"": float(np.mean(list(found.values()))), **found}


def frechet(features: Features, sides: Sides, split: str, floor: Mapping[str, float]) -> Iterator[Measured]:
    """`fid` and `fid_debiased` against `split`: the mean of the planes first, then each plane."""
    few = too_few_units(features, split)
    planes = {plane: _plane(features, split, plane, bool(few)) for plane in features.planes}
    every = list(planes.values())
    mean = _Plane(
        float(np.mean([one.value for one in every])),
        np.mean([one.without_samples for one in every], axis=0),
        np.mean([one.without_real for one in every], axis=0),
    )
    for region, one in {"": mean, **planes}.items():
        about = notes("caution", f"no interval: {few}" if few else "")
        fid = Measured("fid", region, one.value, n_reference=sides.ok, notes=about)
        fid = replace(fid, floor=floor.get(region), floor_note=sides.floor_note(split))
        debiased = Measured("fid_debiased", region, n_reference=sides.ok, notes=about, floor_note="see fid")
        if few:
            yield from (fid, replace(debiased, reason=f"no interval: {few} to leave one out", floor_note=""))
            continue
        left_out = (one.without_samples, one.without_real)
        found, plain = (stats.jackknife(one.value, *left_out, squared=squared) for squared in (True, False))
        value, reach = plain.debiased, plain.high - plain.value
        without = by_unit(features, split, *left_out)
        yield replace(
            fid,
            low=found.low,
            high=found.high,
            interval=f"{INTERVAL_METHOD}, computed for the fourth root",
            without=without,
            notes=(*about, *heavy_tails(one.value, without, squared=True)),
        )
        yield replace(debiased, value=value, low=value - reach, high=value + reach, interval=INTERVAL_METHOD)


def _plane(features: Features, split: str, plane: str, alone: bool) -> _Plane:
    samples, real = features.groups("samples", plane), features.groups(split, plane)
    if alone:
        value = stats.frechet_distance(np.concatenate(samples), np.concatenate(real))
        return _Plane(value, np.empty(0), np.empty(0))
    found = stats.frechet_jackknife(samples, real)
    return _Plane(found.value, found.without_x, found.without_y)
