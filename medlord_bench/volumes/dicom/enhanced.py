"""Multi-frame CT: the geometry and the rescaling of each frame, from the functional groups (PS3.3 C.7.6.16).

What a group of one frame says goes before what the shared groups say.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from medlord_bench.volumes.dicom.frame import Frame, Vector


def frames_of(path: Path, count: int) -> tuple[Frame, ...]:
    """The plane of each frame, in the order of the file; None for what no group says."""
    from pydicom import dcmread

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(path, stop_before_pixels=True, force=True)
        return tuple(
            Frame(
                _vector(dataset, index, "PlanePositionSequence", "ImagePositionPatient"),
                _vector(dataset, index, "PlaneOrientationSequence", "ImageOrientationPatient"),
                _vector(dataset, index, "PixelMeasuresSequence", "PixelSpacing"),
            )
            for index in range(count)
        )


def rescale_of(dataset: Any, index: int) -> tuple[float, float]:
    """Slope and intercept of a frame; those of the file if it has no functional groups."""
    slope = of_frame(dataset, index, "PixelValueTransformationSequence", "RescaleSlope")
    intercept = of_frame(dataset, index, "PixelValueTransformationSequence", "RescaleIntercept")
    slope = dataset.get("RescaleSlope") if slope is None else slope
    intercept = dataset.get("RescaleIntercept") if intercept is None else intercept
    return float(1 if slope is None else slope), float(0 if intercept is None else intercept)


def of_frame(dataset: Any, index: int, group: str, name: str) -> Any:
    """A value of a functional group of one frame, or of all frames; None if neither has it."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    own = [per_frame[index]] if index < len(per_frame) else []
    for place in (*own, *(dataset.get("SharedFunctionalGroupsSequence") or ())):
        found = place.get(group) or ()
        for item in found:
            if item.get(name) is not None:
                return item.get(name)
    return None


def _vector(dataset: Any, index: int, group: str, name: str) -> Vector | None:
    value = of_frame(dataset, index, group, name)
    return None if value is None else tuple(float(one) for one in value)
