"""NIfTI, MetaImage and NRRD files as they are stored: values and affine, with the checks that need the header.

Everything that the header says is checked before any voxel is read, so that a damaged header allocates nothing.
"""

from __future__ import annotations

import gzip
import logging
import math
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlord_bench.errors import UserError
from medlord_bench.volumes.direct import read_direct
from medlord_bench.volumes.formats import data_file
from medlord_bench.volumes.headers import declared_scaling
from medlord_bench.volumes.streams import DEFLATE_RATIO, DEFLATED, check_packed, check_text_header, is_gzip, read_gzip

log = logging.getLogger("medlord_bench")

MM = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
LARGEST_SCALE = 1e6  # of a slope or an intercept; HU have slopes of about 1
FORMS_APART = 0.1  # of a voxel: qform and sform that differ by more
HEADER = 4096  # bytes of a MetaImage or NRRD header that are looked at
PACKED = re.compile(DEFLATED + rb"|encoding\s*:\s*(?:bz|hex|txt|text|ascii)|binarydata\s*=\s*false")
Raw = tuple[NDArray[Any], NDArray[np.float64]]


def check_shape(path: Path, shape: tuple[int, ...], dtype: str) -> None:
    """Raise `UserError` unless it is one 3-D volume of numbers."""
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(f"{path}: has shape {shape}; expected one 3-D volume: split it, or give one phase or channel")
    if np.dtype(dtype).kind not in "iufb":
        raise UserError(f"{path}: has voxels of type {dtype}; expected one number per voxel, in HU: convert it")


def check_affine(path: Path, affine: NDArray[np.float64]) -> None:
    """Raise `UserError` for an affine that cannot be inverted."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    usable = np.isfinite(affine).all() and (lengths > 0).all()
    if not usable or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-3:
        raise UserError(f"{path}: its affine is singular; expected an invertible voxel-to-mm matrix: repair the header")


def check_memory(path: Path, shape: Sequence[int], bytes_per_voxel: int) -> None:
    """Raise `UserError` for a volume that is larger than the machine's memory."""
    import psutil

    needed, there = float(np.prod([float(n) for n in shape])) * bytes_per_voxel, psutil.virtual_memory().total
    if needed > there:
        size = " x ".join(map(str, shape))
        raise UserError(
            f"{path}: its header declares {size} voxels, {needed / 2**30:.3g} GiB; expected less than the memory of this machine, "
            f"{there / 2**30:.3g} GiB: the header is damaged, or crop the image"
        )


def check_scaling(path: Path, slope: float, intercept: float) -> None:
    """Raise `UserError` for a slope or intercept that no HU have."""
    for name, value in (("slope", slope), ("intercept", intercept)):
        if not abs(value) <= LARGEST_SCALE:
            raise UserError(
                f"{path}: its {name} is {value:g}; expected a finite number within {LARGEST_SCALE:g}: repair the header"
            )


# -------------------------------------------------------------------------------------------------------------- NIfTI
def open_nifti(path: Path) -> Any:
    """A nibabel image; compressed or not by its content, whatever its name says. Raises as nibabel does."""
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError
    from nibabel.wrapstruct import WrapStructError

    packed = is_gzip(path)
    if packed == path.name.lower().endswith(".gz"):
        return nib.load(path)
    stream: Any = gzip.open(path) if packed else open(path, "rb")  # noqa: SIM115 - the image reads from it later
    kind = nib.Nifti2Image if int.from_bytes(stream.read(4), "little") in (540, 0x1C020000) else nib.Nifti1Image
    stream.seek(0)
    try:
        return kind.from_stream(stream)
    except WrapStructError as error:
        raise ImageFileError(f"not a NIfTI header: {error}") from None


def read_nifti(path: Path) -> Raw:
    """Values and affine of a NIfTI file. Raises `UserError` naming the file and what is wrong."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty; expected a NIfTI image: copy it again")
    try:
        image = open_nifti(path)
        affine = np.array(image.affine, dtype=np.float64)
        kind, shape = image.header.get_data_dtype(), image.shape
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        check_shape(path, shape, "V" if kind.fields else str(kind))
        _check_declared(path, image, shape)
        slope, intercept = declared_scaling(path)
        if slope and not math.isnan(slope):  # as the standard has it: otherwise values are not scaled
            check_scaling(path, slope, intercept)
        affine[:3] *= MM.get(image.header.get_xyzt_units()[0], 1.0)
        _check_forms(path, image)
        check_affine(path, affine)
        values = _values(path, image).reshape(shape, order="F")
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path}: incomplete NIfTI image ({_first_line(error)}); copy it again") from None
    except (np.linalg.LinAlgError, HeaderDataError, KeyError) as error:  # KeyError: a code that nibabel does not know
        raise UserError(f"{path}: its header is not usable ({_first_line(error)}); repair it") from None
    return values, affine


def _values(path: Path, image: Any) -> NDArray[Any]:
    """The values, rescaled, x fastest; of a compressed file from bytes whose checksum was tested."""
    from nibabel.volumeutils import apply_read_scaling

    stored, kind = image.dataobj, image.header.get_data_dtype()
    if not is_gzip(path):
        return np.asanyarray(stored)
    count = int(np.prod(stored.shape, dtype=np.int64))
    content = read_gzip(path, stored.offset + count * kind.itemsize)
    values = np.frombuffer(content, kind, count, stored.offset).reshape(stored.shape, order="F")
    scaled: NDArray[Any] = apply_read_scaling(values, stored.slope, stored.inter)
    return scaled


def _check_declared(path: Path, image: Any, shape: tuple[int, ...]) -> None:
    """Raise `UserError` if the file is too short for the voxels that its header declares."""
    there, itemsize = path.stat().st_size, image.header.get_data_dtype().itemsize
    needed = float(np.prod([float(n) for n in shape])) * itemsize
    most = there * DEFLATE_RATIO if is_gzip(path) else there
    if needed > most:
        size = " x ".join(map(str, shape))
        raise UserError(
            f"{path}: incomplete NIfTI image: its header declares {size} voxels, {needed:.0f} bytes, and the file has {there}; "
            "expected a whole file: the header is damaged, or copy it again"
        )
    check_memory(path, shape, max(itemsize, 2))


def _check_forms(path: Path, image: Any) -> None:
    """Raise `UserError` without any orientation; warn if the two disagree."""
    codes = int(image.header["qform_code"]), int(image.header["sform_code"])
    if codes == (0, 0):
        raise UserError(
            f"{path}: neither qform_code nor sform_code is set, so left and right are unknown; "
            "expected one of them: save the file again with its affine"
        )
    if not all(codes):
        return
    sform, qform = image.header.get_sform(), image.header.get_qform()
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=np.float64)
    corners[:, :3] *= np.array(image.shape[:3]) - 1
    apart = np.linalg.norm(corners @ (sform - qform)[:3].T, axis=1).max()
    if apart > FORMS_APART * np.linalg.norm(sform[:3, :3], axis=0).min():
        log.warning("%s: its sform and qform differ by up to %.3g mm; the sform is used", path, apart)


# ------------------------------------------------------------------------------------------------ MetaImage and NRRD
def read_itk(path: Path) -> Raw:
    """Values and affine of a MetaImage or NRRD file. Raises `UserError` naming the file and what is wrong."""
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty; expected an image: copy it again")
    check_text_header(path)
    _check_data_file(path, None)
    with plain_name(path) as name:
        return _itk_values(path, name)


@contextmanager
def plain_name(path: Path) -> Iterator[str]:
    """A name for ITK, which takes UTF-8 only: the path's own, else that of a link to the file, beside its data file."""
    try:
        str(path).encode()
        yield str(path)
    except UnicodeEncodeError:
        with TemporaryDirectory() as folder:
            link = Path(folder) / f"image{path.suffix}"
            link.symlink_to(path.absolute())
            data = data_file(path)
            if data is not None:
                (Path(folder) / data.name).symlink_to(data.absolute())
            yield str(link)


def _itk_values(path: Path, name: str) -> Raw:
    """Values, x fastest, and affine, after the header was checked. name: for ITK; path: for messages."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    try:
        reader.ReadImageInformation()
        channels = reader.GetNumberOfComponents()
        shape = (*reader.GetSize(), *([channels] if channels > 1 else []))
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        check_shape(path, shape, "int16")
        itemsize = np.dtype(_type_of(reader)).itemsize
        _check_data_file(path, int(np.prod([float(n) for n in shape])) * itemsize)
        check_memory(path, shape, itemsize)
        values = read_direct(path, _type_of(reader), shape)
        if values is None:
            check_packed(path)
            values = sitk.GetArrayFromImage(reader.Execute()).T.reshape(shape, order="F")
        return values, _itk_affine(reader)
    except RuntimeError as error:
        raise UserError(f"{path}: incomplete image ({_first_line(error)}); copy it again, with its raw file") from None


def _type_of(reader: Any) -> str:
    """The name of the voxels' type in NumPy's words, from SimpleITK's, e.g. "16-bit signed integer"."""
    import SimpleITK as sitk

    words = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    bits = "".join(char for char in words.split("-")[0] if char.isdigit()) or "8"
    return f"{'u' if 'unsigned' in words else ''}{'float' if 'float' in words else 'int'}{bits}"


def _check_data_file(path: Path, size: int | None) -> None:
    """Raise `UserError` if the data file of a header is missing, or, with `size`, if the file with the values is shorter
    than that many bytes and not compressed."""
    data = data_file(path)
    if data is not None and "%" in data.name:  # a numbered series of files
        return
    if data is not None and not os.path.isfile(data):  # noqa: PTH113 - False for a name that no file can have
        expected = _expected_bytes(path)
        raise UserError(
            f"{path}: incomplete image: its data file {data.name} is missing{f' ({expected} bytes)' if expected else ''}; "
            "expected it beside the header: copy it, or repair the name in the header"
        )
    with open(path, "rb") as file:
        header = file.read(HEADER).lower()
    holder = path if data is None else data
    deflated = re.search(DEFLATED, header) is not None
    if (
        size is None
        or (PACKED.search(header) and not deflated)
        or (data is None and path.suffix.lower() in (".mhd", ".nhdr"))
    ):
        return
    size = size // DEFLATE_RATIO if deflated else size
    if holder.stat().st_size < size:
        named = "" if data is None else f"its data file {data.name} has "
        raise UserError(
            f"{path}: incomplete image: {named}{holder.stat().st_size} bytes, expected {size}{' or more' if deflated else ''}: it is cut short; copy it again"
        )


def _expected_bytes(path: Path) -> int:
    """The bytes that a header without its data file declares; 0 if it does not say."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return 0
    voxels = float(np.prod([float(n) for n in reader.GetSize()])) * reader.GetNumberOfComponents()
    return int(voxels) * np.dtype(_type_of(reader)).itemsize


def _itk_affine(reader: Any) -> NDArray[np.float64]:
    """Index to mm in R, A, S: ITK's world is LPS+."""
    dimension = reader.GetDimension()
    affine = np.eye(4)
    directions = np.reshape(reader.GetDirection(), (dimension, dimension))[:3, :3]
    affine[:3, :3] = directions * np.array(reader.GetSpacing()[:3])
    affine[:3, 3] = reader.GetOrigin()[:3]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:160]
