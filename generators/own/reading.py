"""Read a user's own volumes: NIfTI, SimpleITK's formats, `.npy` and `.npz`; then convert to HU on the protocol's
grid."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import Failure, Grid, Volume
from medlord_bench.errors import MissingError, UserError
from medlord_bench.volumes.arrays import declared, load_npy, npz_shapes
from medlord_bench.volumes.checks import not_ct, problem_of
from medlord_bench.volumes.dicom.series import header_of
from medlord_bench.volumes.formats import NIFTI, suffix_of
from medlord_bench.volumes.grid import fit
from medlord_bench.volumes.io import read_array
from medlord_bench.volumes.plausible import implausible
from medlord_bench.volumes.pointers import check_content
from medlord_bench.volumes.stored import open_nifti, plain_name
from medlord_bench.volumes.streams import check_text_header

from .mapping import ARRAYS, MappingConfig

NAME = "volume"  # the array of an .npz with several
BROKEN = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError)


def shape_of(path: Path, mapping: MappingConfig, files: Sequence[Path] = ()) -> tuple[int, ...]:
    """The file's shape along R, A, S, from its header alone; as stored if it is not 3-D. files: of a DICOM series, if not
    all of its folder.

    Raises `MissingError` if there is no file and `UserError` if its header cannot be read.
    """
    if not path.exists():
        raise MissingError(f"{path}: not found; expected a volume: add it, or fix its line in the manifest")
    check_content(path)
    shape, affine = _header(path, files)
    if len(shape) != 3:
        return shape
    found = [0, 0, 0]
    for length, axis in zip(shape, _orientation(mapping, affine)[:, 0], strict=True):
        found[int(axis)] = length
    return tuple(found)


def hu_on_grid(
    path: Path, mapping: MappingConfig, grid: Grid, files: Sequence[Path] = ()
) -> NDArray[np.int16] | Failure:
    """The volume in integer HU within the grid's window, int16 `grid.shape`; a `Failure` if that is impossible.

    Values are rounded after the mapping: rounding [0, 1] before would keep only two values.
    """
    try:
        values = _values(path, mapping, files)
    except MissingError:
        raise
    except UserError as error:
        return Failure(str(error))
    if values.dtype.kind not in "iufb":
        return Failure(f"{path.name}: voxels of type {values.dtype}, expected one number per voxel")
    if values.ndim != 3:
        return Failure(f"{path.name}: shape {values.shape}, expected one 3-D volume")
    if not np.isfinite(values).all():
        return Failure(f"{path.name}: {int((~np.isfinite(values)).sum())} voxels are NaN or infinite")
    hu = _to_hu(values, mapping)
    if isinstance(hu, Failure):
        return hu
    volume = Volume(hu, np.eye(4))
    problem = problem_of(volume, volume.shape)  # before padding, which would mask it
    if problem is not None:
        undeclared = mapping.intensity is None and "scaled" in problem
        return Failure(problem + (": declare intensity.from and intensity.to" if undeclared else ""))
    if mapping.fit == "exact" and volume.shape != grid.shape:
        return Failure(f"{path.name}: shape {volume.shape}, asked for {grid.shape}")
    placed: NDArray[np.int16] = (
        np.clip(hu, *grid.hu_window).astype(np.int16)
        if mapping.fit == "exact"
        else fit(volume, grid, mapping.fit).volume.hu
    )
    hidden = not_ct(
        volume, grid.hu_window
    )  # by clipping or by padding: what shows in the result is a warning of its step
    if hidden is not None and implausible(placed, grid.hu_window) is None:
        return Failure(f"{path.name}: not a CT in HU: {hidden}")
    return placed


def _to_hu(values: NDArray[Any], mapping: MappingConfig) -> NDArray[np.int16] | Failure:
    scale = mapping.intensity
    if scale is not None:
        (low, high), (hu_low, hu_high) = scale.from_, scale.to
        seen_low, seen_high = float(values.min()), float(values.max())
        if seen_low < 2 * low - high or seen_high > 2 * high - low:  # more than overshoot
            return Failure(f"values are in {seen_low:g}..{seen_high:g}, declared {low:g}..{high:g}")
        values = (values.astype(np.float32) - low) / (high - low) * (hu_high - hu_low) + hu_low
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(values.astype(np.float32)), limits.min, limits.max).astype(np.int16)


def _values(path: Path, mapping: MappingConfig, files: Sequence[Path]) -> NDArray[Any]:
    """The stored values, with axes reoriented to R, A, S."""
    from nibabel.orientations import apply_orientation

    check_content(path)
    affine = None
    if path.suffix.lower() in ARRAYS:
        values = _array(path)
    else:
        values, affine = read_array(path, files)
    if values.ndim != 3:
        return values
    oriented: NDArray[Any] = apply_orientation(values, _orientation(mapping, affine))
    return oriented


def _orientation(mapping: MappingConfig, affine: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """The axis among R, A, S of each axis of the file, and whether it is flipped: nibabel's (3, 2)."""
    from nibabel.orientations import axcodes2ornt, io_orientation

    found: NDArray[np.float64]
    if mapping.orientation != "ras":
        found = axcodes2ornt(tuple(mapping.orientation))
    else:
        found = io_orientation(np.eye(4) if affine is None else affine)
    return found


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without axes of length one, such as batch and channel."""
    return shape if len(shape) <= 3 else tuple(n for n in shape if n != 1)


def _array(path: Path) -> NDArray[Any]:
    try:
        if path.suffix.lower() == ".npz":
            member = _member(path, list(npz_shapes(path)))
            with np.load(path, allow_pickle=False) as arrays:
                values: NDArray[Any] = arrays[member]
        else:
            values = load_npy(path)
    except BROKEN as error:
        raise _unreadable(path, error) from None
    return values.reshape(_squeezed(values.shape))


def _member(path: Path, names: list[str]) -> str:
    if NAME in names or len(names) == 1:
        return NAME if NAME in names else names[0]
    raise UserError(
        f"{path}: contains the arrays {', '.join(sorted(names)) or 'none'}; expected one, or one named {NAME!r}"
    )


def _unreadable(path: Path, error: Exception) -> UserError:
    why = " ".join(str(error).split())[:160] or type(error).__name__
    return UserError(f"{path}: cannot be read ({why}); expected an array of numbers without pickles: save it again")


def _header(path: Path, files: Sequence[Path]) -> tuple[tuple[int, ...], NDArray[np.float64] | None]:
    """Shape as stored, without axes of length one beyond three, and affine (None for plain arrays)."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            with open(path, "rb") as file:
                return _squeezed(declared(file, path.stat().st_size, str(path))), None
        if suffix == ".npz":
            shapes = npz_shapes(path)
            return _squeezed(shapes[_member(path, list(shapes))]), None
    except BROKEN as error:
        raise _unreadable(path, error) from None
    if path.is_dir() or not suffix_of(path):
        return header_of(path, files)
    return _image_header(path)


def _image_header(path: Path) -> tuple[tuple[int, ...], NDArray[np.float64] | None]:
    import SimpleITK as sitk
    from nibabel.filebasedimages import ImageFileError

    try:
        if suffix_of(path) in NIFTI:
            image = open_nifti(path)
            shape = tuple(int(n) for n in image.shape)
            while (
                len(shape) > 3 and shape[-1] == 1
            ):  # a first axis of one is a channel, and the affine is not of the others
                shape = shape[:-1]
            return shape, np.asarray(image.affine, dtype=np.float64)
        check_text_header(path)
        reader = sitk.ImageFileReader()
        with plain_name(path) as name:
            reader.SetFileName(name)
            reader.ReadImageInformation()
    except (ImageFileError, *BROKEN, RuntimeError) as error:
        why = " ".join(str(error).split())[-160:]
        raise UserError(f"{path}: its header cannot be read ({why}); expected an image: write it again") from None
    size = tuple(int(n) for n in reader.GetSize())
    if len(size) != 3:
        return size, None
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1.0, -1.0, 1.0]) @ np.reshape(reader.GetDirection(), (3, 3))  # ITK's world is LPS+
    return size, affine
