"""Mid planes of a volume in radiological convention."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medlord_bench.results.pictures import MontageItem
from medlord_bench.volumes.planes import Planes, read_planes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAMES = ("axial", "coronal", "sagittal")


@dataclass(frozen=True, eq=False)
class Plane:
    """One plane, ready to draw. grey: uint8 (rows, columns), row 0 at the top. size: (width, height) in mm.

    sides: the patient's sides (R L A P S I) at the left, right, top and bottom of the image.
    """

    name: str
    grey: NDArray[np.uint8]
    size: tuple[float, float]
    sides: tuple[str, str, str, str]


def mid_planes(planes: Planes, spacing: tuple[float, float, float], window: tuple[float, float]) -> list[Plane]:
    """Axial, coronal and sagittal plane in radiological convention.

    The patient's right is on the image's left in axial and coronal planes, anterior on
    the left in the sagittal one; anterior (axial) or superior (the others) is at the top. spacing: mm along X, Y, Z.
    window: the HU drawn black and white.
    """
    shape = *planes.axial.shape, planes.coronal.shape[1]
    width, depth, height = (size * step for size, step in zip(shape, spacing, strict=True))
    axial, coronal, sagittal = (_grey(image, window) for image in images(planes))
    return [
        Plane("axial", axial, (width, depth), ("R", "L", "A", "P")),
        Plane("coronal", coronal, (width, height), ("R", "L", "S", "I")),
        Plane("sagittal", sagittal, (depth, height), ("A", "P", "S", "I")),
    ]


def images(planes: Planes) -> list[NDArray[np.int16]]:
    """The axial, coronal and sagittal values as rows and columns of an image, row 0 at the top, as in `mid_planes`."""
    return [plane[::-1, ::-1].T for plane in (planes.axial, planes.coronal, planes.sagittal)]


def shown(
    item: MontageItem, spacing: tuple[float, float, float] | None, window: tuple[float, float]
) -> tuple[list[Plane], str]:
    """The mid planes of a volume of a montage, or none and the reason. Raises `UserError` naming a damaged file."""
    if item.path is None:
        return [], item.failed or "failed"
    if not Path(item.path).exists():
        return [], "missing"
    planes = read_planes(Path(item.path))
    return mid_planes(planes, spacing or planes.spacing or (1.0, 1.0, 1.0), window), ""


def _grey(hu: NDArray[np.int16], window: tuple[float, float]) -> NDArray[np.uint8]:
    import numpy as np

    low, high = window
    scaled = (np.nan_to_num(hu.astype(np.float32), nan=low) - low) / (high - low)
    grey: NDArray[np.uint8] = np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)
    return grey
