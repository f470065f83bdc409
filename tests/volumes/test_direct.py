"""MetaImage and NRRD files that are read without ITK have the values that ITK reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from medlord_bench.errors import UserError
from medlord_bench.volumes.direct import read_direct
from medlord_bench.volumes.io import read_array

SHAPE = (7, 5, 3)


def written(path: Path, kind: str = "int16", packed: bool = False) -> np.ndarray[Any, Any]:
    """A file that ITK wrote, and its values (X, Y, Z)."""
    values = np.random.default_rng(0).integers(-100 if kind[0] != "u" else 0, 100, SHAPE).astype(kind)
    sitk.WriteImage(sitk.GetImageFromArray(values.T), str(path), useCompression=packed)
    return values


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", ["mha", "mhd", "nrrd", "nhdr"])
@pytest.mark.parametrize("kind", ["int16", "uint8", "float32", "float64", "uint16"])
def test_files_of_itk_are_read_directly(kind: str, suffix: str, packed: bool, tmp_path: Path) -> None:
    path = tmp_path / f"image.{suffix}"
    values = written(path, kind, packed)
    found = read_direct(path, kind, SHAPE)
    assert found is not None and found.dtype == kind
    assert np.array_equal(found, values)
    again, _ = read_array(path)
    assert np.array_equal(again, values)


def _replace(path: Path, *pairs: tuple[bytes, bytes]) -> None:
    content = path.read_bytes()
    for old, new in pairs:
        assert content.count(old) == 1, old
        content = content.replace(old, new)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("suffix", "old", "new"),
    [
        ("mha", b"BinaryDataByteOrderMSB = False", b"BinaryDataByteOrderMSB = True"),
        ("nrrd", b"endian: little", b"endian: big"),
    ],
)
def test_the_byte_order_of_the_header_counts(suffix: str, old: bytes, new: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"image.{suffix}"
    values = written(path)
    _replace(path, (old, new), (values.tobytes(order="F"), values.astype(">i2").tobytes(order="F")))
    found = read_direct(path, "int16", SHAPE)
    assert found is not None and np.array_equal(found, values)
    itk = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T
    assert np.array_equal(itk, values)


@pytest.mark.parametrize(
    ("suffix", "line"),
    [("mha", b"ElementToIntensityFunctionSlope = 2\n"), ("mha", b"HeaderSize = 0\n"), ("nrrd", b"byte skip: 0\n")],
)
def test_a_header_with_a_line_that_is_not_known_is_left_to_itk(suffix: str, line: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"image.{suffix}"
    values = written(path)
    before = b"ElementDataFile" if suffix == "mha" else b"encoding"
    _replace(path, (before, line + before))
    assert read_direct(path, "int16", SHAPE) is None
    assert np.array_equal(read_array(path)[0], values)


@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
def test_a_flipped_bit_in_the_checksum_is_seen(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{suffix}"
    written(path, packed=True)
    content = bytearray(path.read_bytes())
    content[-2 if suffix == "mha" else -6] ^= 1  # of adler32; of gzip's crc32, which the length follows
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        read_array(path)
