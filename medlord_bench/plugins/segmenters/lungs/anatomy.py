"""The steps that find the lungs: thresholds, connected components and morphology.

The chain follows Hu, Hoffman & Reinhardt (IEEE TMI 20(6):490-498, 2001): threshold, removal of airways, separation of
left and right, smoothing that includes the vessels. Here every step is in 3D and on voxels of 2 to 3 mm; the outline is
then refined on the image's own voxels. Arrays are (X, Y, Z) towards R, A, S.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medlord_bench.volumes.blocks import block_means
from medlord_bench.volumes.padding import Box, image_box

Mask = NDArray[np.bool_]
Image = NDArray[np.float32]
Labels = NDArray[np.uint8]
Spacing = tuple[float, float, float]

LEFT, RIGHT = 1, 2
WORKING_SPACING_MM = 2.5  # mm: voxels are averaged in blocks up to about this size before anything else
AIR_THRESHOLD_HU = -500.0  # HU: air below; at this value thin walls between lungs, or lung and airway, count as tissue
AIR_HU = -1000.0  # HU
LIGHTEST_AIR_HU = -700.0  # HU: below it room air is the most frequent value, or else lung
AIR_PEAK_HU = 15.0  # HU: half the width of the peak of room air
MIN_AIR_OF_SIDES = 0.1  # of the voxels of the sides is room air
LEAST_OFFSET_HU, MOST_OFFSET_HU = 20, 65  # HU: smaller ones change nothing; larger ones look like lung
ROOM_AIR_THRESHOLD_HU = -970.0  # HU: nothing in a body but gas is darker
DARKEST, DENSEST = -950.0, -600.0  # median HU that a lung can have; gas, room air and the trachea are darker
MAIN, MINOR = 0.05, 0.002  # of the largest space's volume: a separate lung, and a possible part of one
MIN_SOLID_FRACTION = 0.1  # of a space's voxels have neighbours in it on all sides; in noise hardly any have
MAX_ROOM_AIR_CONTACT = 0.25  # of a space's surface may touch room air: foam and skin folds have more, lungs hardly any
MIN_TISSUE_CONTACT = 0.6  # of an airway's surroundings outside the lungs is tissue; a bulla is surrounded by lung
MIN_SECOND_CORE_FRACTION = 0.05  # of the larger lung's core: smallest core of the other lung
TYPICAL_LUNG_SIZE_MM = (
    160.0  # mm: cube root of the volume of an adult's two lungs (4 L); the lengths below are for lungs of this size
)
CORE_RADIUS_MM = 8.0  # mm: radius of a ball that fits into each lung, but not through their contact
BRONCHUS_RADIUS_MM = 3.5  # mm: radius of a main bronchus; narrower airways stay in the lung
AIRWAY_WALL_MM = 2.5  # mm: of the airways, and never less than a voxel
MAX_CORE_DISTANCE_MM = 30.0  # mm: largest distance to a lung's core of a separate space that belongs to it


def lungs(hu: NDArray[np.int16], spacing: Spacing, threshold: float, closing: float) -> Labels:
    """Label map of the lungs, uint8 (X, Y, Z): 1 left, 2 right, all zero if there is no lung.

    spacing: voxel size in mm. threshold: HU below which a voxel is air or lung. closing: radius in mm. Padding is no
    part of the image: a lung that is cut there would seem to be open to room air.
    """
    labels, box = np.zeros(hu.shape, np.uint8), image_box(hu)
    if box is not None:
        part = hu[box]
        offset = air_offset(part)
        labels[box] = _lungs(part - np.int16(offset) if offset else part, spacing, threshold, closing)
    return labels


def air_offset(hu: NDArray[np.int16]) -> int:
    """HU by which the room air at the sides of a volume is above -1000; 0 if it is where it should be, or if there is none.

    A volume with a wrong offset has room air above the threshold that tells it from the lungs. Only an air that is a large,
    even part of the sides counts, and only offsets that leave it darker than any lung.
    """
    sides = np.concatenate([plane.ravel() for axis in (0, 1) for plane in (hu.take(0, axis), hu.take(-1, axis))])
    counts, edges = np.histogram(sides, np.arange(AIR_HU - AIR_PEAK_HU, LIGHTEST_AIR_HU, AIR_PEAK_HU))
    level = float(edges[counts.argmax()]) + AIR_PEAK_HU / 2  # the most frequent HU
    air = sides[np.abs(sides - level) <= AIR_PEAK_HU]
    if len(air) < MIN_AIR_OF_SIDES * len(sides):
        return 0
    offset = round(float(np.median(air)) - AIR_HU)
    return offset if LEAST_OFFSET_HU <= offset <= MOST_OFFSET_HU else 0


def _lungs(hu: NDArray[np.int16], spacing: Spacing, threshold: float, closing: float) -> Labels:
    """`lungs` of a volume without padding."""
    x, y, z = (max(1, round(WORKING_SPACING_MM / h)) for h in spacing)
    coarse, mm = block_means(hu, (x, y, z)), (x * spacing[0], y * spacing[1], z * spacing[2])
    labels = np.zeros(coarse.shape, np.uint8)
    spaces, main = lung_spaces(coarse, mm)
    if not main.any():
        return np.zeros(hu.shape, np.uint8)
    scale = min(1.0, float(np.cbrt(np.count_nonzero(main) * np.prod(mm))) / TYPICAL_LUNG_SIZE_MM)
    box = _box(main, [int(scale * max(closing, MAX_CORE_DISTANCE_MM) / h) + 2 for h in mm])
    labels[box] = two_lungs(coarse[box], spaces[box], main[box], mm, scale, closing)
    return outline(hu, labels, (x, y, z), threshold)


def lung_spaces(coarse: Image, mm: Spacing) -> tuple[Mask, Mask]:
    """Connected air spaces of a lung's density inside the body, and the large ones among them, including airways."""
    outside = _room_air(coarse, mm)
    spaces = (coarse < AIR_THRESHOLD_HU) & ~outside
    found, count = ndimage.label(spaces)
    sizes = np.bincount(found.ravel(), minlength=count + 1)
    boxes = ndimage.find_objects(found)
    inner, rim = ndimage.binary_erosion(spaces), ndimage.binary_dilation(outside)
    keep, largest = np.zeros((2, count + 1), bool), 0
    for value in np.argsort(-sizes[1:]) + 1:
        if sizes[value] < max(MINOR * largest, 8):
            break
        box = boxes[value - 1]
        here = found[box] == value
        surface = here & ~inner[box]
        deep = coarse[box][here & inner[box]]
        exposed = np.count_nonzero(surface & rim[box]) / np.count_nonzero(surface)
        if (
            deep.size >= MIN_SOLID_FRACTION * sizes[value]
            and DARKEST <= np.median(deep) <= DENSEST
            and exposed < MAX_ROOM_AIR_CONTACT
        ):
            largest = largest or int(sizes[value])
            keep[:, value] = True, sizes[value] >= MAIN * largest
    return keep[0][found], keep[1][found]


def _room_air(coarse: Image, mm: Spacing) -> Mask:
    """Air that reaches a side of the image. Its density distinguishes it from a lung that is cut by the image's
    side."""
    smooth = ndimage.gaussian_filter(coarse, [1.5 / h for h in mm])
    found, _ = ndimage.label(smooth < ROOM_AIR_THRESHOLD_HU)
    sides = np.concatenate([found[[0, -1]].ravel(), found[:, [0, -1]].ravel()])
    return np.isin(found, np.setdiff1d(sides, [0]))


def two_lungs(coarse: Image, spaces: Mask, main: Mask, mm: Spacing, scale: float, closing: float) -> Labels:
    """Both lungs in one box: remove airways, separate left and right, include vessels. All lengths are multiplied by
    `scale`."""
    airways = _airways(coarse, main, mm, scale * BRONCHUS_RADIUS_MM)
    walls = ndimage.binary_dilation(airways) | _within(airways, mm, scale * AIRWAY_WALL_MM)
    cores = _cores(main & ~walls, mm, scale * CORE_RADIUS_MM)
    sides = _flood(cores, main & ~walls) | _nearby(spaces & ~main, cores, mm, scale * MAX_CORE_DISTANCE_MM)
    closed = [_close(sides == side, mm, scale * closing) for side in (LEFT, RIGHT)]
    free = ~walls & ~(closed[0] & closed[1]) & (sides == 0)
    for side, mask in zip((LEFT, RIGHT), closed, strict=True):
        sides[mask & free] = side
    return sides


def _airways(coarse: Image, spaces: Mask, mm: Spacing, lumen: float) -> Mask:
    """The lumen of trachea and main bronchi: nearer to air than to lung in HU, enclosed by tissue, `lumen` mm wide."""
    dark = (coarse < (np.median(coarse[spaces]) + AIR_HU) / 2) & spaces
    found, count = ndimage.label(dark)
    airway = np.zeros(count + 1, bool)
    tissue = coarse > DENSEST
    boxes = ndimage.find_objects(found)
    for value in np.flatnonzero(np.bincount(found.ravel())[1:] * np.prod(mm) > 4 * lumen**3) + 1:  # a ball's volume
        box = boxes[value - 1]
        wide = tuple(slice(max(s.start - 2, 0), s.stop + 2) for s in box)
        here = found[wide] == value
        shell = ndimage.binary_dilation(here, iterations=2) & ~ndimage.binary_dilation(here)
        airway[value] = shell.any() and tissue[wide][shell].mean() > MIN_TISSUE_CONTACT
    tree = airway[found]
    wide_open = ndimage.distance_transform_edt(tree, sampling=mm) > lumen
    return tree & _within(wide_open, mm, lumen)


def _flood(cores: Labels, spaces: Mask) -> Labels:
    """The side of every air space: that of the first core to reach it through air."""
    found, count = ndimage.label(spaces)
    has = np.zeros((3, count + 1), bool)
    has[cores, found] = True
    shared = has[LEFT] & has[RIGHT]
    sides: Labels = (LEFT * has[LEFT] + RIGHT * has[RIGHT]).astype(np.uint8)[found]
    sides[shared[found]] = cores[shared[found]]
    free = spaces & (sides == 0) & shared[found]
    while free.any():
        steps = [ndimage.binary_dilation(sides == side) & free for side in (LEFT, RIGHT)]
        for side, step in zip((LEFT, RIGHT), steps, strict=True):
            sides[step] = side
        free &= sides == 0
    return sides


def _nearby(spaces: Mask, cores: Labels, mm: Spacing, reach: float) -> Labels:
    """Separate spaces within `reach` mm of a core, each as a whole: the core's side."""
    distance, at = ndimage.distance_transform_edt(cores == 0, sampling=mm, return_indices=True)
    found, count = ndimage.label(spaces)
    near = np.bincount(found[distance <= reach], minlength=count + 1) > 0
    return np.where(near[found] & spaces, cores[tuple(at)], 0).astype(np.uint8)


def _cores(spaces: Mask, mm: Spacing, radius: float) -> Labels:
    """The positions at which a ball fits into each lung, labelled by side.

    The ball grows until two touching lungs are separated. A single lung stays whole.
    """
    depth = ndimage.distance_transform_edt(spaces, sampling=mm)
    radius = min(radius, 0.6 * float(depth.max()))
    for grown in (1.0, 1.25, 1.5):
        found, count = ndimage.label(depth > grown * radius)
        middle = _middle(found, count) if count > 1 else None
        if middle is not None:
            break
    else:
        found, count = ndimage.label(depth > radius)
        middle = np.inf if _bow(spaces) < 0 else -np.inf
    x = np.array([0.0, *(at[0] for at in ndimage.center_of_mass(found > 0, found, range(1, count + 1)))])
    side = np.where(x < middle, LEFT, RIGHT).astype(np.uint8)
    side[0] = 0
    return np.asarray(side[found])


def _bow(mask: Mask) -> float:
    """The curvature of a lung between its front and its back, in voxels along X: outwards, around the heart."""
    x, y = (np.arange(n, dtype=np.float64) for n in mask.shape[:2])
    count = mask.sum(axis=0, dtype=np.float64)  # (Y, Z)
    slices = count[:, mask.any(axis=(0, 1))]
    rows = np.tensordot(x, mask, axes=1)[:, mask.any(axis=(0, 1))]  # sum of X over each row
    total = slices.sum(axis=0)
    at = y[:, None] - y @ slices / total
    spread = (at**2 * slices).sum(axis=0) / total
    middle = 1 - at**2 / np.maximum(spread, 1e-9)  # weights that sum to 0 in each slice
    return float((middle * (rows - slices * rows.sum(axis=0) / total)).sum() / max(float(total.sum()), 1.0))


def _middle(found: NDArray[np.integer[Any]], count: int) -> float | None:
    """The X index between the largest part and the largest one beside it, or None without one."""
    sizes = np.bincount(found.ravel(), minlength=count + 1)
    order = [
        value for value in np.argsort(-sizes[1:]) + 1 if sizes[value] >= MIN_SECOND_CORE_FRACTION * sizes[1:].max()
    ]
    spans = {}
    for value in order:
        columns = np.cumsum(np.count_nonzero(found == value, axis=(1, 2)))
        spans[value] = tuple(np.searchsorted(columns, np.array([0.1, 0.9]) * columns[-1]))
    low, high = spans[order[0]]
    for value in order[1:]:
        if spans[value][1] < low:
            return float(spans[value][1] + low) / 2
        if spans[value][0] > high:
            return float(spans[value][0] + high) / 2
    return None


def _within(mask: Mask, mm: Spacing, reach: float) -> Mask:
    """A mask dilated by `reach` mm."""
    if not mask.any():
        return mask
    return np.asarray(ndimage.distance_transform_edt(~mask, sampling=mm) <= reach)


def _close(mask: Mask, mm: Spacing, radius: float) -> Mask:
    """Closing by a ball, then holes filled in 3D and in each axial slice, to include vessels that leave the slice."""
    wide = _within(mask, mm, radius)
    closed = mask | (ndimage.distance_transform_edt(wide, sampling=mm) > radius)
    closed = ndimage.binary_fill_holes(closed)
    slices = [ndimage.binary_fill_holes(closed[:, :, z]) for z in range(closed.shape[2])]
    return np.stack(slices, axis=2)


def _box(mask: Mask, margins: Sequence[int]) -> Box:
    """The smallest box around a mask, extended by `margins` voxels on each side."""
    slices = []
    for axis, wide in enumerate(margins):
        at = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        slices.append(slice(max(int(at[0]) - wide, 0), int(at[-1]) + wide + 1))
    return slices[0], slices[1], slices[2]


def outline(hu: NDArray[np.int16], coarse: Labels, factors: tuple[int, int, int], threshold: float) -> Labels:
    """Labels of blocks on the image's voxels: inside unchanged, at the border decided by `threshold` on the image."""
    shape = hu.shape
    labels = np.zeros(shape, np.uint8)
    if not coarse.any():
        return labels
    box = _box(coarse > 0, [1, 1, 1])
    at = tuple(slice(s.start * f, s.stop * f) for s, f in zip(box, factors, strict=True))
    small = coarse[box]
    inner = np.where(ndimage.minimum_filter(small, size=3) == small, small, 0)  # whole neighbourhood has one side
    free = small == 0
    outer = np.where(free, ndimage.maximum_filter(small, size=3), small)
    fine_in, fine_out = (_repeat(part, factors, hu[at].shape) for part in (inner, outer))
    labels[at] = np.where((fine_in > 0) | (hu[at] < threshold), fine_out, 0)
    return labels


def _repeat(labels: Labels, factors: tuple[int, int, int], shape: tuple[int, ...]) -> Labels:
    for axis, factor in enumerate(factors):
        labels = labels.repeat(factor, axis)
    x, y, z = shape
    return labels[:x, :y, :z]
