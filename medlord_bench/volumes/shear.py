"""Images whose slices are shifted against each other, as a tilted gantry makes them, resampled to upright grids.

A shear in the affine is right, but crops, patches and networks see only the array: without this a tilt of 20 degrees
leans every organ. Slices stay where they are along their normal; each is moved within its plane by a fraction of a
voxel, linearly interpolated, on a grid enlarged by the largest shift.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import LabelMap, Volume
from medlord_bench.errors import UserError

log = logging.getLogger("medlord_bench")

LEAST_SHIFT = 0.5  # voxels over the whole image: less is rounding of the header
OUTSIDE_HU = -1024
RIGHT_ANGLE = 1e-3  # cosine between two axes that count as orthogonal


def shear_of(affine: NDArray[np.float64], shape: tuple[int, int, int]) -> tuple[int, NDArray[np.float64]] | None:
    """The axis whose planes are shifted, and the shift per plane in voxels along each axis; None for an upright grid.

    Raises ValueError if no axis has planes whose own two axes are at right angles.
    """
    columns = affine[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    units = columns / lengths
    for axis in (2, 1, 0):
        one, two = (other for other in range(3) if other != axis)
        if abs(float(units[:, one] @ units[:, two])) > RIGHT_ANGLE:
            continue
        shift = np.zeros(3)
        for other in (one, two):
            shift[other] = float(columns[:, axis] @ units[:, other]) / lengths[other]
        if np.abs(shift).max() * (shape[axis] - 1) < LEAST_SHIFT:
            return None
        return axis, shift
    raise ValueError("no two of its axes are at right angles")


def straightened(volume: Volume, labels: LabelMap | None, where: Path) -> tuple[Volume, LabelMap | None]:
    """The image and its mask on an upright grid; themselves if they are on one. where: the file, for messages."""
    try:
        found = shear_of(volume.affine, volume.shape)
    except ValueError as error:
        raise UserError(
            f"{where}: its affine is sheared: {error}; expected a grid with right angles: resample it"
        ) from None
    if found is None:
        return volume, labels
    axis, shift = found
    angle = np.degrees(
        np.arctan(np.linalg.norm(shift * np.linalg.norm(volume.affine[:3, :3], axis=0)) / _normal_step(volume, axis))
    )
    log.info("%s: its slices are tilted by %.3g degrees: resampled to an upright grid", where, angle)
    moved = _move(
        volume.hu.astype(np.float32), axis, shift, float(min(OUTSIDE_HU, int(volume.hu.min()))), nearest=False
    )
    affine = _upright(volume.affine, volume.shape, axis, shift)
    upright = Volume(np.rint(moved).astype(np.int16), affine)
    if labels is None:
        return upright, None
    return upright, LabelMap(_move(labels.labels, axis, shift, 0, nearest=True), affine, labels.names)


def _normal_step(volume: Volume, axis: int) -> float:
    one, two = (volume.affine[:3, other] for other in range(3) if other != axis)
    normal = np.cross(one, two)
    return abs(float(volume.affine[:3, axis] @ normal)) / float(np.linalg.norm(normal))


def _extents(count: int, shift: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Voxels added before and after each axis, so that every shifted plane fits."""
    last = shift * (count - 1)
    return np.ceil(np.maximum(-last, 0) - 1e-6).astype(np.int64), np.ceil(np.maximum(last, 0) - 1e-6).astype(np.int64)


def _upright(
    affine: NDArray[np.float64], shape: tuple[int, int, int], axis: int, shift: NDArray[np.float64]
) -> NDArray[np.float64]:
    before, _ = _extents(shape[axis], shift)
    new = affine.copy()
    new[:3, axis] = affine[:3, axis] - affine[:3, :3] @ shift
    new[:3, 3] = affine[:3, 3] - affine[:3, :3] @ before
    return new


def _move(values: NDArray[Any], axis: int, shift: NDArray[np.float64], outside: float, nearest: bool) -> NDArray[Any]:
    """Each plane along `axis` moved by its number times `shift` voxels; `outside` where no plane has a value."""
    from scipy.ndimage import shift as shifted

    before, after = _extents(values.shape[axis], shift)
    padded = np.pad(values, [(int(b), int(a)) for b, a in zip(before, after, strict=True)], constant_values=outside)
    planes = [other for other in range(3) if other != axis]
    for number in range(values.shape[axis]):
        index: list[slice | int] = [slice(None)] * 3
        index[axis] = number
        plane = padded[tuple(index)]
        move = [float(shift[other] * number) for other in planes]
        shifted(plane.copy(), move, output=plane, order=0 if nearest else 1, mode="constant", cval=outside)
    return padded
