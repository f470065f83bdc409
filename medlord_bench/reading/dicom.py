"""A case as a classic DICOM CT series, written from nothing: every tag is equal in all cases but code, UIDs and pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlord_bench.errors import MissingError

from .key import EXTRA
from .pictures import PRESETS
from .rebuild import StudyGrid

PREFIX = "MLB-"  # of every PatientID: not a patient
DATE, TIME = "20000101", "000000"
IMPLEMENTATION = "2.25.302043790172249692526321623266752743501"  # a constant, random once


def require_pydicom() -> Any:
    """The library. Raises `MissingError` without it."""
    try:
        import pydicom
    except ModuleNotFoundError:
        raise MissingError(f"DICOM needs the package pydicom, which is not installed: {EXTRA}") from None
    return pydicom


def write_series(folder: Path, hu: NDArray[np.int16], grid: StudyGrid, code: str, uid: Callable[..., str]) -> None:
    """One file for each axial slice, `IM0001.dcm` the lowest. hu: (X, Y, Z), axes towards R, A, S. uid: of parts.

    DICOM's axes are L, P, S: columns run to the left, rows to the back, slices upwards (PS3.3 C.7.6.2). The first voxel of
    the study's grid stays at the origin.
    """
    require_pydicom()
    folder.mkdir(parents=True)
    lps = hu[::-1, ::-1]
    x, y, z = grid.spacing
    corner = (-x * (grid.shape[0] - 1), -y * (grid.shape[1] - 1))
    data = _series(grid, code, uid)
    for k in range(grid.shape[2]):
        data.InstanceNumber = str(k + 1)
        data.ImagePositionPatient = [_ds(corner[0]), _ds(corner[1]), _ds(k * z)]
        data.SliceLocation = _ds(k * z)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uid("image", k)
        data.PixelData = np.ascontiguousarray(lps[:, :, k].T, dtype="<i2").tobytes()
        data["PixelData"].VR = "OW"
        data.save_as(folder / f"IM{k + 1:04d}.dcm", enforce_file_format=True)


def _series(grid: StudyGrid, code: str, uid: Callable[..., str]) -> Any:
    """What all slices of a series have."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION)
    meta.ImplementationVersionName = "READING_PACK_1"
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    constant = {
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["DERIVED", "SECONDARY", "AXIAL"],
        "SOPClassUID": CTImageStorage,
        **dict.fromkeys(("StudyDate", "SeriesDate", "ContentDate"), DATE),
        **dict.fromkeys(("StudyTime", "SeriesTime", "ContentTime"), TIME),
        **dict.fromkeys(("AccessionNumber", "Manufacturer", "ReferringPhysicianName"), ""),
        **dict.fromkeys(("PatientBirthDate", "PatientSex", "PositionReferenceIndicator"), ""),
        **dict.fromkeys(("KVP", "AcquisitionNumber")),
        "Modality": "CT",
        "StudyDescription": "Reading study, not for clinical use",
        "SeriesDescription": code,
        "PatientName": f"{code}^",
        "PatientID": f"{PREFIX}{code}",
        "BodyPartExamined": "WHOLEBODY",
        "PatientPosition": "HFS",
        "StudyInstanceUID": uid("study"),
        "SeriesInstanceUID": uid("series"),
        "FrameOfReferenceUID": uid("frame"),
        "StudyID": "1",
        "SeriesNumber": "1",
    }
    for name, value in (constant | _image(grid)).items():
        setattr(data, name, value)
    return data


def _image(grid: StudyGrid) -> dict[str, object]:
    """The image tags that do not depend on the slice."""
    x, y, z = (_ds(step) for step in grid.spacing)
    names, windows = list(PRESETS), list(PRESETS.values())
    return {
        "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
        "PixelSpacing": [y, x],  # between rows first
        "SliceThickness": z,
        "SpacingBetweenSlices": z,
        "Columns": grid.shape[0],
        "Rows": grid.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleIntercept": "0",
        "RescaleSlope": "1",
        "RescaleType": "HU",
        "WindowCenter": [_ds((low + high) / 2) for low, high in windows],
        "WindowWidth": [_ds(high - low) for low, high in windows],
        "WindowCenterWidthExplanation": names,
    }


def _ds(value: float) -> str:
    """A decimal string of at most 16 characters (PS3.5 6.2)."""
    return f"{value + 0.0:.10g}"[:16]
