"""The descriptors of one volume: HU, spread and noise of each tissue, the noise's spectrum, the sharpness of borders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import LabelMap
from medlord_bench.contracts.regions import values_of
from medlord_bench.descriptors.table import Descriptor
from medlord_bench.volumes.padding import image_box

from .blocks import PLANES, SIDE, Blocks, in_blocks
from .classes import AIR, BONE, CLASSES, CONTRAST, FAT, LEAST, LUNG, SOFT, classes, inner, noise_of, volume_noise
from .edges import BORDERS, widths
from .spectrum import ACROSS, mean_frequencies

WITH_SPREAD = (AIR, LUNG, FAT, SOFT, CONTRAST)
WITH_NOISE = (AIR, FAT, SOFT, CONTRAST)  # in lung and bone it is texture
# HU: to which a scanner's water is calibrated, and a spread or noise that nobody sees
RESOLUTION = {"tissue_hu": 5.0, "tissue_spread": 1.0, "tissue_noise": 1.0}
WITH_SHARE = (LUNG, FAT, CONTRAST, BONE)  # of the body; soft tissue is the rest, air depends on the field of view
DARK_LUNG = 0.15  # of the lung's blocks are darker: its density varies less between patients than the median's
LEAST_VOXELS = 50  # of a region for its HU
IQR_TO_SD = 1.349  # of a Gaussian
OF_CLASSES = (
    *(Descriptor("tissue_hu", name, RESOLUTION["tissue_hu"]) for name in CLASSES),
    Descriptor("tissue_hu", "lung (15th percentile)", RESOLUTION["tissue_hu"]),
    *(Descriptor("tissue_spread", name, RESOLUTION["tissue_spread"]) for name in WITH_SPREAD),
    *(Descriptor("tissue_noise", name, RESOLUTION["tissue_noise"]) for name in WITH_NOISE),
    *(Descriptor("tissue_share", name) for name in WITH_SHARE),
    *(Descriptor("tissue_nps", plane) for plane in ACROSS),
    *(Descriptor("tissue_edge", f"{border}, {way}") for border in BORDERS for way in ("in-plane", "along Z")),
)


def descriptors(regions: Sequence[str]) -> tuple[Descriptor, ...]:
    """The descriptors of the classes, then those of each region of a segmenter."""
    return (*OF_CLASSES, *(Descriptor(name, region, least) for region in regions for name, least in RESOLUTION.items()))


def describe(hu: NDArray[np.int16], labels: LabelMap | None = None, regions: Sequence[str] = ()) -> list[float]:
    """A number for each of `descriptors(regions)`; NaN where the volume lacks what is described."""
    box = image_box(hu) or (slice(None),) * 3
    hu = hu[box]
    blocks = Blocks.of(hu)
    noise = volume_noise(blocks)
    values = [*_of_classes(blocks, noise)]
    values += mean_frequencies(hu, noise).values()
    values += [width for pair in widths(hu).values() for width in pair]
    if labels is not None:
        values += _of_regions(hu, blocks, labels.labels[box], labels, regions)
    return [float(value) for value in values]


def _of_classes(blocks: Blocks, noise: float) -> Iterator[float]:
    found = classes(blocks, noise)
    core = inner(blocks, found, noise)
    body = int((~found[AIR]).sum())
    for name in CLASSES:
        yield _level(blocks.mean[core[name]])
    yield _level(blocks.mean[core[LUNG]], DARK_LUNG)
    for name in WITH_SPREAD:
        yield _spread(blocks.mean[core[name]])
    for name in WITH_NOISE:
        yield noise_of(blocks.noise[core[name]])
    for name in WITH_SHARE:
        yield found[name].sum() / body if body else np.nan


def _level(means: NDArray[np.float32], share: float = 0.5) -> float:
    return float(np.quantile(means, share)) if means.size >= LEAST else np.nan


def _spread(means: NDArray[np.float32]) -> float:
    if means.size < LEAST:
        return np.nan
    low, high = np.quantile(means, (0.25, 0.75))
    return float(high - low) / IQR_TO_SD


def _of_regions(
    hu: NDArray[np.int16], blocks: Blocks, labels: NDArray[np.uint8], given: LabelMap, regions: Sequence[str]
) -> Iterator[float]:
    """HU of the voxels of a region; spread and noise of the blocks that lie wholly in one label of it."""
    whole = _one_label(labels)
    for region in regions:
        values = values_of(region, given.names)
        voxels, own = hu[np.isin(labels, values)], np.isin(whole, values)
        yield float(np.median(voxels)) if voxels.size >= LEAST_VOXELS else np.nan
        yield from (_spread(blocks.mean[own]), noise_of(blocks.noise[own]))


def _one_label(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The label of each block, 0 where it has more than one."""
    planes = labels.shape[2] // SIDE
    parts = []
    for start in range(0, planes, PLANES):
        part = in_blocks(labels, slice(start, start + PLANES))
        lowest = part.min((1, 3, 5))
        parts.append(np.where(lowest == part.max((1, 3, 5)), lowest, 0))
    return np.concatenate(parts, axis=2) if parts else np.zeros((*(n // SIDE for n in labels.shape[:2]), 0), np.uint8)
