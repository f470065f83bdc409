"""All descriptors of a volume's anatomy, in one order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import LabelMap
from medlord_bench.descriptors.table import Descriptor
from medlord_bench.volumes.body import Spacing, blocks_of, lung_space, working
from medlord_bench.volumes.padding import image_box

from .shapes import AXES, Body, Regions, shape_values
from .thorax import THIN_MM, bone, mediastinum, vessels

FINE_MM = 1.5  # blocks for the vessels
COARSE_MM = 3.0  # blocks for shapes and bone
RATIO, SHARE, HU = 0.01, 0.001, 10.0  # below which volumes count as alike
NEIGHBOURS = (
    ("heart", "lung_left"),
    ("heart", "lung_right"),
    ("heart", "lungs"),
    ("heart", "aorta"),
    ("aorta", "lungs"),
    ("aorta", "pulmonary_artery"),
    ("aorta", "spine"),
    ("lung_left", "lung_right"),
)


def descriptors(regions: Sequence[str]) -> tuple[Descriptor, ...]:
    """What `measure` returns, for these regions."""
    found = [
        Descriptor("anatomy_share", "lung by HU", SHARE),
        Descriptor("anatomy_extent", "mediastinum by HU, median", RATIO),
        Descriptor("anatomy_extent", "mediastinum by HU, widest", RATIO),
        Descriptor("anatomy_vessels", "bright", SHARE),
        *(Descriptor("anatomy_vessels", f"thinner than {side:g} mm", SHARE) for side in THIN_MM),
        Descriptor("anatomy_share", "bone by HU", SHARE),
        Descriptor("anatomy_bone", "bone by HU", HU),
    ]
    for region in regions:
        found += [Descriptor("anatomy_extent", f"{region} {axis}", RATIO) for axis in AXES]
        found += [Descriptor("anatomy_place", f"{region} {axis}", RATIO) for axis in AXES]
        found += [Descriptor("anatomy_sphericity", region, RATIO), Descriptor("anatomy_share", region, SHARE)]
    found += [Descriptor("anatomy_distance", f"{one} to {other}", RATIO) for one, other in _neighbours(regions)]
    return tuple(found)


def _neighbours(regions: Sequence[str]) -> list[tuple[str, str]]:
    return [pair for pair in NEIGHBOURS if set(pair) <= set(regions)]


def measure(hu: NDArray[np.int16], labels: LabelMap, regions: Sequence[str], mm: Spacing) -> list[float]:
    """The descriptors of a volume and its label map, on one grid of voxels of `mm`; NaN where it lacks something.

    Padding is left out. Everything is measured on blocks of voxels, shapes and bone on about 3 mm, vessels on 1.5 mm.
    """
    box = image_box(hu)
    if box is None:
        return [np.nan] * len(descriptors(regions))
    fine, fine_mm = working(hu[box], mm, FINE_MM)
    factors = blocks_of(fine_mm, COARSE_MM)
    coarse, coarse_mm = working(fine, fine_mm, COARSE_MM)
    lungs = lung_space(coarse, coarse_mm)
    body = Body.of(coarse, coarse_mm)
    some = bool(lungs.any())
    size = float(np.prod(np.array(coarse_mm))) / float(np.prod(body.size))
    found = [np.count_nonzero(lungs) * size, *(mediastinum(lungs) if some else (np.nan, np.nan))]
    for axis, factor in enumerate(factors):
        lungs = lungs.repeat(factor, axis)
    x, y, z = fine.shape
    found += vessels(fine, lungs[:x, :y, :z], fine_mm) if some else (np.nan,) * (1 + len(THIN_MM))
    found += bone(coarse, coarse_mm)
    steps = [f * g for f, g in zip(blocks_of(mm, FINE_MM), factors, strict=True)]
    parts = Regions.of(labels, steps, coarse_mm, box)
    for region in regions:
        found += shape_values(parts.mask(region), coarse_mm, body)
    found += [parts.distance(one, other) / body.width for one, other in _neighbours(regions)]
    return found
