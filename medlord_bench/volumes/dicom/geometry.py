"""The order of a series' slices and its affine, from ImagePositionPatient and ImageOrientationPatient alone.

SliceThickness, SpacingBetweenSlices, SliceLocation and InstanceNumber decide nothing: they are often wrong. The step
from slice to slice is a vector, so that a gantry tilt stays in the affine as a shear (the approach of dcm2niix and
highdicom; ITK's series reader loses it, InsightSoftwareConsortium/ITK issue 1676).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medlord_bench.volumes.dicom.frame import Frame

SAME_PLACE_MM = 0.01
SAME_DIRECTION = 1e-3  # of direction cosines: files round them to a few digits
LEAST_TOLERANCE_MM = 0.1  # positions are often rounded to 0.1 mm
TOLERANCE = 0.05  # of a step
MISSING = 1.5  # times the usual step: a slice is missing, if
WHOLE = 0.1  # every step is a whole number of usual steps, to this fraction


@dataclass(frozen=True)
class Slice:
    """One slice: its file, the number of its frame in the file, where it lies."""

    path: Path
    index: int
    frame: Frame

    @property
    def name(self) -> str:
        return self.path.name if self.index == 0 else f"{self.path.name} frame {self.index + 1}"


class GeometryError(ValueError):
    """What is wrong with the geometry of a series: one line that names the files."""


def ordered(slices: Sequence[Slice]) -> tuple[list[Slice], NDArray[np.float64]]:
    """The slices along their normal, and the affine from (column, row, slice) to mm in R, A, S.

    Raises `GeometryError` for a slice without position, orientation or pixel spacing, for two planes of one series that
    are not parallel or of another pixel size, two slices at one position, missing slices and uneven steps.
    """
    _check_complete(slices)
    row, column, (between_rows, between_columns) = _plane(slices)
    normal = np.cross(row, column)
    placed = sorted(slices, key=lambda one: float(np.dot(_position(one), normal)))
    positions = np.array([_position(one) for one in placed])
    _check_steps(placed, positions, positions @ normal)
    step = (positions[-1] - positions[0]) / max(len(placed) - 1, 1)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = row * between_columns, column * between_rows, step
    affine[:3, 3] = positions[0]
    return placed, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _position(one: Slice) -> NDArray[np.float64]:
    return np.array(one.frame.position, dtype=np.float64)


def _check_complete(slices: Sequence[Slice]) -> None:
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        field = {"ImagePositionPatient": "position", "ImageOrientationPatient": "orientation"}.get(tag, "spacing")
        without = [one for one in slices if getattr(one.frame, field) is None]
        if without:
            raise GeometryError(f"{tag} is missing in {_named(without)}; expected it in every slice")
    bad = [one for one in slices if min(one.frame.spacing or (0.0,)) <= 0]
    if bad:
        raise GeometryError(f"PixelSpacing is {bad[0].frame.spacing} in {_named(bad)}; expected mm above 0")


def _plane(slices: Sequence[Slice]) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float]]:
    """Directions of a row and of a column, orthogonal unit vectors; pixel spacing. The same in every slice."""
    first = slices[0].frame
    directions = np.array(first.orientation, dtype=np.float64)
    for one in slices:
        if np.abs(np.array(one.frame.orientation) - directions).max() > SAME_DIRECTION:
            raise GeometryError(f"{one.name} and {slices[0].name} are not parallel; expected one orientation")
        if not np.allclose(np.array(one.frame.spacing), np.array(first.spacing), rtol=1e-3, atol=0):
            raise GeometryError(
                f"PixelSpacing is {one.frame.spacing} in {one.name}, {first.spacing} in {slices[0].name}; expected one"
            )
    row, column = directions[:3], directions[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if min(lengths) < 0.5 or abs(float(row @ column)) > SAME_DIRECTION * 10:
        raise GeometryError(f"ImageOrientationPatient of {slices[0].name} is not two directions at right angles")
    spacing = first.spacing or (0.0, 0.0)
    return row / lengths[0], column / lengths[1], (spacing[0], spacing[1])


def _check_steps(placed: Sequence[Slice], positions: NDArray[np.float64], along: NDArray[np.float64]) -> None:
    gaps = np.diff(along)
    for index in np.flatnonzero(gaps < SAME_PLACE_MM).tolist():
        raise GeometryError(
            f"{placed[index].name} and {placed[index + 1].name} are two files at one position; expected one slice at each: "
            "give one phase or reconstruction, remove the copy"
        )
    if len(placed) < 3:
        return
    usual = float(np.median(gaps))
    line = positions[0] + np.outer(np.arange(len(placed)), (positions[-1] - positions[0]) / (len(placed) - 1))
    off = np.linalg.norm(positions - line, axis=1)
    if off.max() <= max(LEAST_TOLERANCE_MM, TOLERANCE * usual):
        return
    at = int(gaps.argmax())
    times = gaps / usual
    if gaps.max() >= MISSING * usual and np.abs(times - np.rint(times)).max() < WHOLE:
        raise GeometryError(
            f"slices are missing: {gaps.max():g} mm between {placed[at].name} and {placed[at + 1].name}, elsewhere "
            f"{usual:g} mm; expected even steps: export the series again"
        )
    if gaps.max() <= gaps.min() * 1.01:
        raise GeometryError(
            f"{placed[int(off.argmax())].name} lies {off.max():.3g} mm beside the line through the other slices; expected "
            "slices that are shifted by one step each"
        )
    raise GeometryError(
        f"steps from slice to slice are {gaps.min():.4g} to {gaps.max():.4g} mm (largest between {placed[at].name} and "
        f"{placed[at + 1].name}); expected even steps: resample the series, or export it again"
    )


def _named(slices: Sequence[Slice]) -> str:
    more = f" and {len(slices) - 1} more" if len(slices) > 1 else ""
    return slices[0].name + more
