"""CT files in and out: NIfTI through nibabel, MetaImage, NRRD and DICOM series through SimpleITK.

For any axes of the file, the result has axes towards Right, Anterior, Superior, lengths in mm, and an
affine into the RAS+ world. An oblique affine is not resampled: its axes are permuted and flipped to the nearest of
R, A, S and the affine keeps the tilt, so that no voxel value changes.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import LabelMap, Volume
from medlord_bench.errors import MissingError, UserError
from medlord_bench.util.files import publish
from medlord_bench.volumes.formats import NIFTI, SUFFIXES, suffix_of

_MM = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
_Raw = tuple[NDArray[Any], NDArray[np.float64]]


def read_volume(path: Path) -> Volume:
    """Read a CT: int16 HU (X, Y, Z), rescale slope and intercept applied, axes towards R, A, S.

    path: a NIfTI, MetaImage or NRRD file, or a folder that holds one DICOM series. Values are rounded to whole HU;
    `volumes.check_ct` decides whether they are HU. Raises `MissingError` if there is no file and
    `UserError` if it is not one 3-D scalar image of finite values with a usable affine.
    """
    values, affine = read_array(path)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise UserError(f"{path}: {count} voxels are NaN or infinite; expected finite HU: repair or exclude the file")
    values, affine = to_ras(values, affine)
    limits = np.iinfo(np.int16)
    if values.dtype != np.int16:
        rounded = np.rint(values) if values.dtype.kind == "f" else values
        values = np.clip(rounded, limits.min, limits.max).astype(np.int16)
    return Volume(np.ascontiguousarray(values), affine)


def read_labels(path: Path, names: Mapping[int, str]) -> LabelMap:
    """Read a label map: uint8 (X, Y, Z), axes towards R, A, S.

    names: label value to region name, without 0. If a value is above 255 (MM-WHS uses up to 850) labels are
    renumbered 1, 2, ... in ascending order of their values, in the map and in its names.
    Raises `UserError` if the file contains a value that `names` does not define.
    """
    values, affine = to_ras(*read_array(path))
    found = np.unique(values)
    unknown = [f"{value:g}" for value in found.tolist() if value != 0 and value not in names]
    if unknown:
        shown = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        known = ", ".join(f"{value} {name}" for value, name in sorted(names.items())[:8]) or "none"
        raise UserError(f"{path}: label values {shown} have no name; known: {known}; add them to label_names")
    own = {int(value): name for value, name in names.items()}
    if max(own, default=0) > 255:
        order = sorted(own)
        values = np.where(values == 0, 0, np.searchsorted(order, values) + 1)
        own = {index + 1: own[value] for index, value in enumerate(order)}
    return LabelMap(np.ascontiguousarray(values.astype(np.uint8)), affine, own)


def write_volume(path: Path, volume: Volume) -> None:
    """Write int16 NIfTI (.nii or .nii.gz), atomically. The same volume gives the same bytes.

    Raises `UserError` for any other suffix.
    """
    _write(path, volume.hu.astype(np.int16, copy=False), volume.affine)


def write_labels(path: Path, labels: LabelMap) -> None:
    """Write uint8 NIfTI (.nii or .nii.gz), atomically. The names are not part of the file."""
    _write(path, labels.labels.astype(np.uint8, copy=False), labels.affine)


def to_ras(values: NDArray[Any], affine: NDArray[np.float64]) -> _Raw:
    """Permute and flip the axes to the nearest of R, A, S; the world position of every voxel is unchanged."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    orientation = io_orientation(affine)
    return apply_orientation(values, orientation), affine @ inv_ornt_aff(orientation, values.shape)


def read_array(path: Path) -> _Raw:
    path = Path(path)
    if not path.exists():
        raise MissingError(f"{path}: not found; expected an image file or a folder with a DICOM series")
    if path.is_dir():
        values, affine = _read_dicom(path)
    elif suffix_of(path) in NIFTI:
        values, affine = _read_nifti(path)
    elif suffix_of(path):
        values, affine = _read_itk(path)
    else:
        raise UserError(
            f"{path}: cannot read {path.suffix or 'a file without suffix'!r}; expected {', '.join(SUFFIXES)} "
            "or a DICOM folder: convert it"
        )
    _check_shape(path, values.shape, str(values.dtype))
    _check_affine(path, affine)
    return values, affine


def _check_shape(path: Path, shape: tuple[int, ...], dtype: str) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(f"{path}: has shape {shape}; expected one 3-D volume: split it, or give one phase or channel")
    if np.dtype(dtype).kind not in "iufb":
        raise UserError(f"{path}: has voxels of type {dtype}; expected one number per voxel, in HU: convert it")


def _check_affine(path: Path, affine: NDArray[np.float64]) -> None:
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    usable = np.isfinite(affine).all() and (lengths > 0).all()
    if not usable or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-3:
        raise UserError(f"{path}: its affine is singular; expected an invertible voxel-to-mm matrix: repair the header")


def _read_nifti(path: Path) -> _Raw:
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty; expected a NIfTI image: copy it again")
    try:
        image = nib.load(path)
        affine = np.asarray(image.affine, dtype=np.float64)
        codes = int(image.header["qform_code"]), int(image.header["sform_code"])
        kind, shape = image.header.get_data_dtype(), image.shape
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        _check_shape(path, shape, "V" if kind.fields else str(kind))
        values = np.asanyarray(image.dataobj).reshape(shape)
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path}: incomplete NIfTI image ({_first_line(error)}); copy it again") from None
    except (np.linalg.LinAlgError, HeaderDataError) as error:
        raise UserError(f"{path}: its header is not usable ({_first_line(error)}); repair it") from None
    if codes == (0, 0):
        raise UserError(
            f"{path}: neither qform_code nor sform_code is set, so left and right are unknown; "
            "expected one of them: save the file again with its affine"
        )
    affine[:3] *= _MM.get(image.header.get_xyzt_units()[0], 1.0)
    return values, affine


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:160]


def _read_itk(path: Path) -> _Raw:
    import SimpleITK as sitk

    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty; expected an image: copy it again")
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise UserError(f"{path}: incomplete image ({_first_line(error)}); copy it again, with its raw file") from None
    return _from_itk(path, image)


def _from_itk(path: Path, image: Any) -> _Raw:
    import SimpleITK as sitk

    channels = image.GetNumberOfComponentsPerPixel()
    shape = (*image.GetSize(), *([channels] if channels > 1 else []))
    _check_shape(path, shape, "int16")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # ITK's world is LPS+


def _read_dicom(folder: Path) -> _Raw:
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    series = reader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        found = "no DICOM series" if not series else f"{len(series)} DICOM series"
        raise UserError(f"{folder}: {found}; expected exactly one per folder: give the folder of one series")
    names = reader.GetGDCMSeriesFileNames(str(folder), series[0])
    reader.SetFileNames(names)
    reader.MetaDataDictionaryArrayUpdateOn()
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise UserError(f"{folder}: its DICOM series cannot be read ({_first_line(error)}); export it again") from None
    _check_dicom(folder, reader, len(names))
    return _from_itk(folder, image)


def _check_dicom(folder: Path, reader: Any, count: int) -> None:
    modality = reader.GetMetaData(0, "0008|0060").strip() if reader.HasMetaDataKey(0, "0008|0060") else ""
    if modality and modality != "CT":
        raise UserError(f"{folder}: DICOM Modality is {modality!r}; expected 'CT': exclude the folder")
    if not all(reader.HasMetaDataKey(i, "0020|0032") for i in range(count)):
        return
    where = np.array([[float(x) for x in reader.GetMetaData(i, "0020|0032").split("\\")] for i in range(count)])
    steps = np.linalg.norm(np.diff(where, axis=0), axis=1)
    if len(steps) and steps.max() > 1.1 * np.median(steps):
        at = int(steps.argmax()) + 1
        raise UserError(
            f"{folder}: slices are missing: {steps.max():g} mm between slices {at} and {at + 1}, elsewhere "
            f"{np.median(steps):g} mm; expected even spacing: export the series again"
        )


def _write(path: Path, values: NDArray[Any], affine: NDArray[np.float64]) -> None:
    import nibabel as nib

    path = Path(path)
    if suffix_of(path) not in NIFTI:
        raise UserError(f"{path}: cannot write {path.suffix!r}; expected a name that ends in .nii or .nii.gz")
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    square = np.allclose(directions.T @ directions, np.eye(3), atol=1e-5)
    image.set_qform(affine if square else None, code=1 if square else 0)  # a qform cannot hold shear
    publish(path, lambda temporary: _write_bytes(temporary, image.to_bytes()))


def _write_bytes(path: Path, content: bytes) -> None:
    """Gzip without name and time if the file name ends in .gz: equal volumes give equal bytes."""
    with open(path, "wb") as file:
        if path.name.endswith(".gz"):
            with gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=1, mtime=0) as packed:
                packed.write(content)
        else:
            file.write(content)
