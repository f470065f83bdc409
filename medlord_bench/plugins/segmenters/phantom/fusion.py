"""Prior times likelihood: the atlas gives possible positions of a region, the volume's own HU decide its presence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medlord_bench.plugins.segmenters.phantom.atlas import GRID, HU_BINS, Atlas, Image

# Effect of the contrast medium on each region: lowest and highest level in HU, and the deviation of voxels.
LEVELS = {
    6: (60.0, 170.0),  # lv_myocardium
    7: (270.0, 500.0),  # left_ventricle
    8: (125.0, 330.0),  # right_ventricle
    9: (270.0, 500.0),  # left_atrium
    10: (125.0, 350.0),  # right_atrium
    11: (270.0, 500.0),  # aorta
    12: (125.0, 340.0),  # pulmonary_artery
}
SHARED_LEVEL_REGIONS = (
    (7, 9, 11),
    (8, 10, 12),
    (6,),
)  # regions with the same blood, or the muscle: one level each
LUNGS = (4, 5)
LUNG_MOST = -500.0  # HU; denser tissue is not lung
CORE_PRIOR = 0.6  # prior above which a voxel is used to estimate a region's level
MAX_NEIGHBOUR_STEP_HU = 120.0  # largest difference of neighbours inside a region, HU; more is noise, not tissue
MIN_EXPECTED_FRACTION = 0.15  # of the voxels that the prior expects: with fewer a region is missing
MIN_LOG_SCORE = -12.0  # lower bound of a score: no voxel may outvote its neighbours

Labels = NDArray[np.uint8]


def segment(hu: NDArray[np.int16], atlas: Atlas) -> Labels:
    """Labels uint8 (X, Y, Z) of a volume in HU with the phantom's field of view."""
    values = hu.astype(np.float32)
    prior = atlas.prior(_resampled(values, GRID))
    if hu.shape != GRID:
        prior = np.stack([_resampled(one, hu.shape) for one in prior])
    levels = _levels(values, prior)
    score = np.log(prior)
    bins: dict[float, NDArray[np.intp]] = {}  # of the voxels' HU less a level, which regions share
    for label in range(len(score)):
        table, offset = (atlas.residual, levels[label]) if label in LEVELS else (atlas.likelihood, 0.0)
        if offset not in bins:
            bins[offset] = np.clip(np.digitize(values - offset, HU_BINS) - 1, 0, len(HU_BINS) - 2)
        score[label] += np.log(table[label]).astype(np.float32)[bins[offset]]
    score = np.stack([ndimage.gaussian_filter(np.maximum(one, MIN_LOG_SCORE), 0.5) for one in score])
    labels: Labels = score.argmax(0).astype(np.uint8)
    for label in (*LEVELS, *LUNGS):
        _keep_if_there(labels, label, prior[label], values)
    return labels


def _resampled(values: Image, shape: tuple[int, ...]) -> Image:
    if values.shape == tuple(shape):
        return values
    zoom = [n / m for n, m in zip(shape, values.shape, strict=True)]
    result: Image = ndimage.zoom(values, zoom, order=1, grid_mode=True, mode="nearest")
    return result


def _levels(values: Image, prior: Image) -> dict[int, float]:
    """The HU level of each region in this volume, from voxels of high prior, within the range of the contrast
    medium."""
    levels: dict[int, float] = {}
    for together in SHARED_LEVEL_REGIONS:
        low, high = min(LEVELS[label][0] for label in together), max(LEVELS[label][1] for label in together)
        core = np.concatenate(
            [values[prior[label] > min(CORE_PRIOR, 0.9 * float(prior[label].max()))] for label in together]
        )
        fitting = core[(core > low) & (core < high)]
        level = float(np.median(fitting)) if fitting.size else (low + high) / 2
        levels |= dict.fromkeys(together, level)
    return levels


def _keep_if_there(labels: Labels, label: int, prior: Image, values: Image) -> None:
    """Keep the largest part of a region; remove a region that lacks voxels, tissue or contrast."""
    found, count = ndimage.label(labels == label, np.ones((3, 3, 3)))
    if count == 0:
        return
    sizes = np.bincount(found.ravel())
    sizes[0] = 0
    part = found == sizes.argmax()
    low, high = LEVELS.get(label, (-1100.0, LUNG_MOST))
    there = part.sum() >= MIN_EXPECTED_FRACTION * float(prior.sum()) and low <= float(np.median(values[part])) <= high
    labels[
        (labels == label) & ~part if there and _grain(part, values) <= MAX_NEIGHBOUR_STEP_HU else labels == label
    ] = 1


def _grain(part: NDArray[np.bool_], values: Image) -> float:
    """The difference of neighbours inside a region, HU: the median of the absolute differences along X."""
    both = part[1:] & part[:-1]
    return float(np.median(np.abs(values[1:] - values[:-1])[both])) if both.any() else np.inf
