"""DICOM files written element by element, in any geometry, and what they must be read as."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass
class Writer:
    """Writes slices into a folder. stored: (rows, columns) per slice. step: mm from slice to slice, in L, P, S."""

    series: str = field(default_factory=generate_uid)

    def slice(self, path: Path, stored: np.ndarray, position: Sequence[float], **tags: Any) -> Path:
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = tags.get("SOPClassUID", CTImageStorage)
        meta.MediaStorageSOPInstanceUID = tags.get("SOPInstanceUID", generate_uid())
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        dataset.Modality, dataset.SeriesInstanceUID, dataset.PatientID = "CT", self.series, "somebody"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.Rows, dataset.Columns = stored.shape[-2:]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, int(stored.dtype.kind == "i")
        dataset.PixelSpacing, dataset.ImageOrientationPatient = [1.5, 0.75], list(AXIAL)
        dataset.ImagePositionPatient = [round(float(x), 6) for x in position]
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        dataset.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
        for name, value in tags.items():
            if value is None:
                delattr(dataset, name)
            else:
                setattr(dataset, name, value)
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(path, enforce_file_format=True)
        return path

    def volume(
        self,
        folder: Path,
        stored: np.ndarray,
        step: Sequence[float],
        first: Sequence[float] = (-9.0, 5.0, 80.0),
        **tags: Any,
    ) -> Path:
        """stored: (slices, rows, columns). File names run against the order of the slices."""
        for k, plane in enumerate(stored):
            position = np.array(first, dtype=float) + k * np.array(step, dtype=float)
            self.slice(folder / f"i{len(stored) - k:03d}.dcm", plane, position, **tags)
        return folder


@pytest.fixture
def writer() -> Writer:
    return Writer()


@pytest.fixture
def new_writer() -> Callable[[], Writer]:
    return Writer


@pytest.fixture
def some_hu() -> np.ndarray:
    """(slices, rows, columns) int16: air with a block of tissue, no two voxels alike in a row."""
    rng = np.random.default_rng(5)
    hu = rng.integers(-1020, -960, (7, 10, 13)).astype(np.int16)
    hu[:, 3:8, 2:9] = rng.integers(-90, 300, (7, 5, 7))
    return hu


def enhanced(
    path: Path, stored: np.ndarray, step: float, rescale: Sequence[tuple[float, float]], order: Sequence[int]
) -> Path:
    """A multi-frame CT. rescale: slope and intercept of each frame. order: the place of each frame along the axis."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2.1", generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.SeriesInstanceUID, dataset.PatientID = "CT", generate_uid(), "somebody"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    plane, measures, shared = Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient, measures.PixelSpacing = list(AXIAL), [1.5, 0.75]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for place, (slope, intercept) in zip(order, rescale, strict=True):
        position, transform, group = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [3.0, -4.0, 10.0 + place * step]
        transform.RescaleSlope, transform.RescaleIntercept, transform.RescaleType = slope, intercept, "HU"
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [position], [transform]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.PixelData = stored.astype("<i2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def write_enhanced() -> Callable[..., Path]:
    return enhanced
