"""The values of a slice in HU: stored values, padding and rescaling, slice by slice.

pydicom decodes uncompressed, RLE and JPEG 2000 data, GDCM (python-gdcm) the JPEG family. Both give stored values, which
padding and rescaling need; SimpleITK gives values rescaled in the type of a series' first slice.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlord_bench.errors import UserError
from medlord_bench.volumes.dicom.enhanced import rescale_of
from medlord_bench.volumes.stored import check_scaling

AIR_HU = -1024.0  # what padding becomes that is brighter than air
DARKEST_AIR_HU = -1000.0
LIMITS = np.iinfo(np.int16)


def hu_of(path: Path, frames: list[int]) -> list[NDArray[np.int16]]:
    """The frames of a file as int16 HU (rows, columns), rounded, values beyond int16 at its ends.

    Raises `UserError` naming the file if its pixel data are cut short, coloured, or cannot be decoded.
    """
    from pydicom import dcmread
    from pydicom.uid import UID

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = dcmread(path, force=True)
            if not dataset.file_meta.get("TransferSyntaxUID"):
                dataset.file_meta.TransferSyntaxUID = UID(_syntax(dataset))
            return _frames_of(path, dataset, frames)
        except UserError:
            raise
        except (
            Exception
        ) as error:  # the decoders raise errors of many types, and elements are parsed when they are asked for
            raise UserError(
                f"{path}: its pixel data cannot be read ({_short(error)}); expected whole, decodable pixel data: copy it again"
            ) from None


def _frames_of(path: Path, dataset: Any, frames: list[int]) -> list[NDArray[np.int16]]:
    stored = _decoded(dataset)
    if int(dataset.get("SamplesPerPixel", 1)) != 1 or dataset.get("ModalityLUTSequence"):
        what = "a look-up table for its values" if dataset.get("ModalityLUTSequence") else "several values per pixel"
        raise UserError(f"{path}: it has {what}; expected one number per pixel, with RescaleSlope and RescaleIntercept")
    many = stored.reshape(-1, *stored.shape[-2:])
    return [_hu(path, many[index], dataset, index) for index in frames]


def _hu(path: Path, stored: NDArray[Any], dataset: Any, index: int) -> NDArray[np.int16]:
    slope, intercept = rescale_of(dataset, index)
    check_scaling(path, slope, intercept)
    values = stored.astype(np.float64) * slope + intercept
    padding = _padding(stored, dataset)
    if padding is not None and padding.any():
        _darken(values, padding)
    return np.clip(np.rint(values), LIMITS.min, LIMITS.max).astype(np.int16)


def _decoded(dataset: Any) -> NDArray[Any]:
    """The stored values. pydicom masks them to BitsStored and extends their sign, but takes the lowest bits whatever
    HighBit says."""
    bits, allocated = int(dataset.get("BitsStored", 16)), int(dataset.get("BitsAllocated", 16))
    shift = int(dataset.get("HighBit", bits - 1)) + 1 - bits
    if shift <= 0:
        lowest: NDArray[Any] = dataset.pixel_array
        return lowest
    dataset.BitsStored, dataset.HighBit = allocated, allocated - 1
    values: NDArray[Any] = np.asarray(dataset.pixel_array >> shift) & (2**bits - 1)
    dataset.BitsStored = bits
    if not int(dataset.get("PixelRepresentation", 0)):
        return values
    return np.asarray(np.where(values >= 2 ** (bits - 1), values - 2**bits, values))


def _padding(stored: NDArray[Any], dataset: Any) -> NDArray[np.bool_] | None:
    """Which pixels have the padding value, or one between it and its limit; compared as bits, since files write it with
    the wrong sign."""
    if dataset.get("PixelPaddingValue") is None:
        return None
    size = 2 ** int(dataset.get("BitsStored", 16))
    signed = bool(int(dataset.get("PixelRepresentation", 0)))

    def as_stored(value: Any) -> int:
        whole: int = int(value) % size
        return whole - size if signed and whole >= size // 2 else whole

    first = as_stored(dataset.PixelPaddingValue)
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((first, first if limit is None else as_stored(limit)))
    return np.asarray((stored >= low) & (stored <= high))


def _darken(values: NDArray[np.float64], padding: NDArray[np.bool_]) -> None:
    """Padding brighter than air becomes air, where it reaches the border: some files declare a value that tissue has."""
    from scipy.ndimage import label

    if values[padding].max() <= DARKEST_AIR_HU:
        return
    pieces, _ = label(padding)
    border = np.unique(np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]]))
    outside = np.isin(pieces, border[border > 0])
    values[outside & (values > DARKEST_AIR_HU)] = min(AIR_HU, float(values[~outside].min(initial=AIR_HU)))


def _syntax(dataset: Any) -> str:
    """The transfer syntax of a file that does not state one: as it was parsed."""
    implicit, little = dataset.original_encoding
    return "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
