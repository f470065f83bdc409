"""Fit a volume to a protocol's grid, and back.

The order is always: clip to the HU window, then crop, pad or interpolate. Interpolating first would spread values
outside the window (padding of -3024 or -32768, metal) to their neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import FitMode, Grid, LabelMap, Shape, Volume


@dataclass(frozen=True, eq=False)
class Placement:
    """The placement of a volume of `source_shape` on a grid of `shape`, from which the fit can be inverted.

    start: the source voxel at the grid's first voxel (negative if the grid was padded); zeros for "resize".
    affine: of the fitted volume; its column lengths are the effective spacing in mm.
    """

    mode: FitMode
    source_shape: Shape
    source_affine: NDArray[np.float64]
    shape: Shape
    start: Shape
    affine: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A volume on its protocol's grid, and the placement that `restore` inverts."""

    volume: Volume
    placement: Placement


def place(shape: Shape, affine: NDArray[np.float64], grid: Shape, mode: FitMode) -> Placement:
    """The placement of a volume of `shape` on `grid`.

    "crop-pad" is about the centre and rounds as MONAI's CenterSpatialCrop and SpatialPad do. "resize" keeps the field
    of view, so that voxel i' lies at (i' + 0.5) * old / new - 0.5 and the spacing is scaled by old / new.
    """
    new = np.array(affine, dtype=np.float64)
    if mode == "crop-pad":
        start = [n // 2 - m // 2 if n >= m else -((m - n) // 2) for n, m in zip(shape, grid, strict=True)]
        new[:3, 3] += affine[:3, :3] @ np.array(start, dtype=np.float64)
        return Placement(mode, shape, affine, grid, (start[0], start[1], start[2]), new)
    step = np.array(shape) / np.array(grid)
    new[:3, :3] = affine[:3, :3] * step
    new[:3, 3] += affine[:3, :3] @ (0.5 * step - 0.5)
    return Placement(mode, shape, affine, grid, (0, 0, 0), new)


def fit(volume: Volume, grid: Grid, mode: FitMode) -> Fitted:
    """Clip to the grid's window and fit to its shape: HU int16 `grid.shape`.

    "crop-pad" pads with the window's low end. "resize" interpolates trilinearly, after a Gaussian blur of
    (factor - 1) / 2 voxels along axes that shrink by `factor`, as anti-aliasing.
    """
    low, high = grid.hu_window
    placement = place(volume.shape, volume.affine, grid.shape, mode)
    hu = np.clip(volume.hu, low, high)
    if mode == "crop-pad":
        return Fitted(Volume(window(hu, placement.start, grid.shape, low), placement.affine), placement)
    factors = [n / m for n, m in zip(volume.shape, grid.shape, strict=True)]
    return Fitted(Volume(_interpolate(hu, grid.shape, factors), placement.affine), placement)


def fit_labels(labels: LabelMap, grid: Grid, mode: FitMode) -> LabelMap:
    """Fit a label map to the grid as `fit` does for its image: background outside, nearest neighbour."""
    placement = place(labels.shape, labels.affine, grid.shape, mode)
    if mode == "crop-pad":
        values = window(labels.labels, placement.start, grid.shape, 0)
    else:
        factors = [n / m for n, m in zip(labels.shape, grid.shape, strict=True)]
        values = _nearest(labels.labels, grid.shape, factors)
    return LabelMap(values, placement.affine, labels.names)


def restore(volume: Volume, placement: Placement, outside: int = -1000) -> Volume:
    """Restore a volume from the grid to the source's.

    "crop-pad": every kept voxel is restored exactly; cropped voxels become `outside` HU.
    "resize": interpolated back. Detail finer than the coarser of the two grids is lost; with either mode, so are
    values outside the HU window.
    """
    if placement.mode == "crop-pad":
        back = tuple(-s for s in placement.start)
        hu = window(volume.hu, (back[0], back[1], back[2]), placement.source_shape, outside)
    else:
        factors = [m / n for n, m in zip(placement.source_shape, placement.shape, strict=True)]
        hu = _interpolate(volume.hu, placement.source_shape, factors)
    return Volume(hu, placement.source_affine)


def resample(volume: Volume, spacing: tuple[float, float, float], hu_window: tuple[int, int]) -> Volume:
    """Resample to `spacing` mm about the volume's centre, clipped to the window first, blurred where it shrinks."""
    shape, factors, affine = _to_spacing(volume.shape, volume.affine, spacing)
    return Volume(_interpolate(np.clip(volume.hu, *hu_window), shape, factors), affine)


def resample_labels(labels: LabelMap, spacing: tuple[float, float, float]) -> LabelMap:
    """Resample a label map to `spacing` mm as `resample` does its image; nearest neighbour."""
    shape, factors, affine = _to_spacing(labels.shape, labels.affine, spacing)
    return LabelMap(_nearest(labels.labels, shape, factors), affine, labels.names)


def _to_spacing(
    shape: Shape, affine: NDArray[np.float64], spacing: tuple[float, float, float]
) -> tuple[Shape, list[float], NDArray[np.float64]]:
    old = np.linalg.norm(affine[:3, :3], axis=0)
    factors = np.array(spacing) / old
    x, y, z = (max(1, round(n / f)) for n, f in zip(shape, factors, strict=True))
    new = np.array(affine, dtype=np.float64)
    new[:3, :3] = affine[:3, :3] * factors
    middle_old, middle_new = (np.array(shape) - 1) / 2, (np.array([x, y, z]) - 1) / 2
    new[:3, 3] += affine[:3, :3] @ middle_old - new[:3, :3] @ middle_new
    return (x, y, z), factors.tolist(), new


def window(values: NDArray[Any], start: Shape, shape: Shape, outside: int) -> NDArray[Any]:
    """The box of `shape` whose first voxel is `start`; `outside` beyond the array."""
    out = np.full(shape, outside, dtype=values.dtype)
    source = tuple(slice(max(s, 0), max(min(s + m, n), 0)) for s, m, n in zip(start, shape, values.shape, strict=True))
    target = tuple(slice(max(-s, 0), max(min(n - s, m), 0)) for s, m, n in zip(start, shape, values.shape, strict=True))
    out[target] = values[source]
    return out


def _positions(old: int, new: int, factor: float) -> NDArray[np.float64]:
    """Positions of the new voxels in units of the old, centre-aligned, clamped to the outermost old voxels."""
    return np.clip((old - 1) / 2 + (np.arange(new) - (new - 1) / 2) * factor, 0, old - 1)


def _interpolate(hu: NDArray[np.int16], shape: Shape, factors: list[float]) -> NDArray[np.int16]:
    """Linear along each axis in turn, which is trilinear; int16 by rounding."""
    from scipy.ndimage import gaussian_filter1d

    values = hu.astype(np.float32)
    order = sorted(range(3), key=lambda axis: -factors[axis])  # shrink first: fewer computations
    for axis in order:
        if factors[axis] == 1.0 and values.shape[axis] == shape[axis]:
            continue
        if factors[axis] > 1.0:
            values = gaussian_filter1d(values, (factors[axis] - 1) / 2, axis=axis, mode="nearest")
        at = _positions(values.shape[axis], shape[axis], factors[axis])
        below = np.minimum(at.astype(np.intp), max(values.shape[axis] - 2, 0))
        above = np.minimum(below + 1, values.shape[axis] - 1)
        weight = (at - below).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        first, second = values.take(below, axis=axis), values.take(above, axis=axis)
        values = first + (second - first) * weight
    return np.rint(values).astype(np.int16)


def _nearest(values: NDArray[np.uint8], shape: Shape, factors: list[float]) -> NDArray[np.uint8]:
    for axis in range(3):
        at = _positions(values.shape[axis], shape[axis], factors[axis])
        values = values.take(np.floor(at + 0.5).astype(np.intp).clip(0, values.shape[axis] - 1), axis=axis)
    return np.ascontiguousarray(values)
