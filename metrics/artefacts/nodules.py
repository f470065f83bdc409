"""Compact bright spots in the lungs: nodules, true or false, against vessels, which are tubes."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medlord_bench.volumes.body import Spacing, lung_space, shrunk, working

FINE_MM = 1.5  # voxels are averaged in blocks up to about this size
COARSER = 2  # fine voxels per voxel along each axis, for the lungs
SIZES_MM = (1.5, 3.0)  # standard deviations of the Gaussian: spots of about 2.5 and 5 mm radius
LEAST_CONTRAST = 60.0  # HU above the mean of the surroundings
SURROUNDINGS = 3.0  # times the size
LEAST_ROUNDNESS = 0.45  # smallest over largest curvature: a tube has 0, a ball 1
PLEURA_MM = 3.0  # from the border of the lungs, where nothing is counted
LEAST_ML = 20.0  # of lung
MM3_PER_ML, ML_PER_L = 1000.0, 1000.0


def nodules(hu: NDArray[np.int16], mm: Spacing) -> tuple[float, ...]:
    """Compact bright spots per litre of lung, of each size; NaN without enough lung. mm: voxel size."""
    fine, fine_mm = working(hu, mm, FINE_MM)
    coarse, coarse_mm = working(fine, fine_mm, COARSER * FINE_MM)
    lungs = shrunk(lung_space(coarse, coarse_mm), coarse_mm, PLEURA_MM)
    litres = np.count_nonzero(lungs) * float(np.prod(coarse_mm)) / MM3_PER_ML / ML_PER_L
    if litres * ML_PER_L < LEAST_ML:
        return (np.nan,) * len(SIZES_MM)
    box = ndimage.find_objects(lungs.astype(np.uint8))[0]
    factors = [round(c / f) for c, f in zip(coarse_mm, fine_mm, strict=True)]
    inside = lungs[box]
    for axis, factor in enumerate(factors):
        inside = inside.repeat(factor, axis)
    part = fine[tuple(slice(s.start * f, s.stop * f) for s, f in zip(box, factors, strict=True))]
    inside = inside[tuple(slice(n) for n in part.shape)]
    return tuple(_spots(part, inside, fine_mm, size) / litres for size in SIZES_MM)


def _spots(fine: NDArray[np.float32], inside: NDArray[np.bool_], mm: Spacing, size: float) -> int:
    sigmas = [max(size / h, size / FINE_MM) for h in mm]  # of coarser voxels, at least 1 and 2
    smooth = ndimage.gaussian_filter(fine, sigmas, mode="nearest")
    around = ndimage.gaussian_filter(fine, [SURROUNDINGS * s for s in sigmas], mode="nearest", truncate=2.0)
    peaks = inside & (smooth - around > LEAST_CONTRAST)
    peaks &= smooth == ndimage.maximum_filter(smooth, [2 * max(1, round(size / h)) + 1 for h in mm], mode="nearest")
    for axis in range(3):
        np.moveaxis(peaks, axis, 0)[[0, -1]] = False
    places = np.argwhere(peaks)
    return int((roundness(smooth, places, mm) > LEAST_ROUNDNESS).sum()) if len(places) else 0


def roundness(smooth: NDArray[np.float32], places: NDArray[np.intp], mm: Spacing) -> NDArray[np.float64]:
    """At each place (n, 3), the smallest over the largest curvature of the intensity: 1 ball, 0 tube, below 0 saddle.

    Second derivatives by central differences. Places at the border of the grid are not allowed.
    """
    near = {
        step: smooth[tuple((places + np.array(step)).T)].astype(np.float64) for step in product((-1, 0, 1), repeat=3)
    }
    unit = np.eye(3, dtype=int)
    hessian = np.empty((len(places), 3, 3))
    for i in range(3):
        up, down = tuple(unit[i]), tuple(-unit[i])
        hessian[:, i, i] = (near[up] - 2 * near[0, 0, 0] + near[down]) / mm[i] ** 2
        for j in range(i):
            plus, minus = unit[i] + unit[j], unit[i] - unit[j]
            mixed = near[tuple(plus)] + near[tuple(-plus)] - near[tuple(minus)] - near[tuple(-minus)]
            hessian[:, i, j] = hessian[:, j, i] = mixed / (4 * mm[i] * mm[j])
    curvature = -np.linalg.eigvalsh(hessian)
    return np.asarray(curvature.min(axis=1) / np.maximum(np.abs(curvature).max(axis=1), 1e-9))
