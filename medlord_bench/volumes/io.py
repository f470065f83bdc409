"""CT files in and out: NIfTI through nibabel, MetaImage and NRRD through SimpleITK, DICOM series through `dicom`.

For any axes of the file, the result has axes towards Right, Anterior, Superior, lengths in mm, and an
affine into the RAS+ world. An oblique affine is not resampled: its axes are permuted and flipped to the nearest of
R, A, S and the affine keeps the tilt, so that no voxel value changes.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import LabelMap, Volume
from medlord_bench.errors import MissingError, UserError
from medlord_bench.util.files import publish
from medlord_bench.volumes.dicom.headers import is_dicom
from medlord_bench.volumes.dicom.series import read_series
from medlord_bench.volumes.formats import NIFTI, SUFFIXES, suffix_of
from medlord_bench.volumes.order import in_c_order
from medlord_bench.volumes.pointers import check_content
from medlord_bench.volumes.stored import check_affine, check_shape, read_itk, read_nifti

LABEL_NOISE = 1e-3  # label values are whole numbers up to this
_Raw = tuple[NDArray[Any], NDArray[np.float64]]


def read_volume(path: Path, files: Sequence[Path] = ()) -> Volume:
    """Read a CT: int16 HU (X, Y, Z), rescale slope and intercept applied, axes towards R, A, S.

    path: a NIfTI, MetaImage or NRRD file, a folder that holds one DICOM series, or a file of a DICOM series. files: the
    files of that series, if not all of its folder. Values are rounded to whole HU; `volumes.check_ct` decides whether they
    are HU. Raises `MissingError` if there is no file and `UserError` if it is not one 3-D scalar image of finite values
    with a usable affine.
    """
    values, affine = read_array(path, files)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise UserError(f"{path}: {count} voxels are NaN or infinite; expected finite HU: repair or exclude the file")
    values, affine = to_ras(values, affine)
    limits = np.iinfo(np.int16)
    if values.dtype != np.int16:
        rounded = np.rint(values) if values.dtype.kind == "f" else values
        values = np.clip(rounded, limits.min, limits.max).astype(np.int16)
    return Volume(in_c_order(values), affine)


def read_labels(path: Path, names: Mapping[int, str]) -> LabelMap:
    """Read a label map: uint8 (X, Y, Z), axes towards R, A, S.

    names: label value to region name, without 0. If a value is above 255 (MM-WHS uses up to 850) labels are
    renumbered 1, 2, ... in ascending order of their values, in the map and in its names.
    Raises `UserError` if the file contains a value that `names` does not define.
    """
    values, affine = to_ras(*read_array(path))
    if values.dtype.kind == "f" and np.abs(values - np.rint(values)).max(initial=0) <= LABEL_NOISE:
        values = np.rint(values)  # a slope such as 1/255, or noise of a conversion
    found = np.unique(values)
    if found.min() < 0:
        raise UserError(
            f"{path}: label value {found.min():.9g}; expected values from 0 (background) up: repair the mask"
        )
    unknown = [f"{value:.9g}" for value in found.tolist() if value != 0 and value not in names]
    if unknown:
        shown = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        known = ", ".join(f"{value} {name}" for value, name in sorted(names.items())[:8]) or "none"
        raise UserError(f"{path}: label values {shown} have no name; known: {known}; add them to label_names")
    own = {int(value): name for value, name in names.items()}
    if max(own, default=0) > 255:
        order = sorted(own)
        values = np.where(values == 0, 0, np.searchsorted(order, values) + 1)
        own = {index + 1: own[value] for index, value in enumerate(order)}
    return LabelMap(in_c_order(values.astype(np.uint8)), affine, own)


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


def read_array(path: Path, files: Sequence[Path] = ()) -> _Raw:
    """The stored values, rescaled, in the order of the file's axes, and the affine to mm in R, A, S."""
    path = Path(path)
    check_content(path)
    if not path.exists():
        raise MissingError(f"{path}: not found; expected an image file or a folder with a DICOM series")
    suffix = "" if path.is_dir() else suffix_of(path)
    if suffix in NIFTI:
        values, affine = read_nifti(path)
    elif suffix:
        values, affine = read_itk(path)
    elif path.is_dir() or is_dicom(path):
        values, affine = read_series(path, files)
    else:
        raise UserError(
            f"{path}: cannot read {path.suffix or 'a file without suffix'!r}; expected {', '.join(SUFFIXES)} "
            "or DICOM: convert it"
        )
    check_shape(path, values.shape, str(values.dtype))
    check_affine(path, affine)
    return values, affine


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
