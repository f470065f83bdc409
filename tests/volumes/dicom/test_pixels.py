"""HU of every slice: signed and unsigned, few bits, padding, rescaling by slice, compressed; against pydicom and NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import RLELossless

from medlord_bench.errors import UserError
from medlord_bench.volumes.dicom.headers import read_header
from medlord_bench.volumes.dicom.pixels import hu_of
from medlord_bench.volumes.dicom.series import read_series

STEP = (0, 0, 2)


def test_slices_are_rescaled_one_by_one_and_signed_beside_unsigned(
    tmp_path: Path, writer: Any, some_hu: np.ndarray
) -> None:
    """The first slice decides nothing: neither its intercept, its slope nor its type."""
    for k, plane in enumerate(some_hu):
        signed = k % 2 == 0
        stored = plane.astype(np.int16) if signed else (plane.astype(int) + 2000).astype(np.uint16)
        writer.slice(tmp_path / f"{k}.dcm", stored, (0, 0, k), RescaleIntercept=0 if signed else -2000)
    assert np.array_equal(read_series(tmp_path)[0].T, some_hu)


def test_a_fractional_slope_is_rounded_once(tmp_path: Path, writer: Any, some_hu: np.ndarray) -> None:
    writer.volume(tmp_path, some_hu, STEP, RescaleSlope=0.37, RescaleIntercept=-12.4)
    assert np.array_equal(read_series(tmp_path)[0].T, np.rint(some_hu * 0.37 - 12.4))


def test_twelve_signed_bits_have_their_sign_extended(tmp_path: Path, writer: Any, some_hu: np.ndarray) -> None:
    stored = (some_hu.astype(int) & 0xFFF).astype(np.int16)  # the upper four bits are zero, also of negative numbers
    writer.volume(tmp_path, stored, STEP, BitsStored=12, HighBit=11)
    assert np.array_equal(read_series(tmp_path)[0].T, some_hu)


def test_bits_that_lie_higher_are_moved_down(tmp_path: Path, writer: Any, some_hu: np.ndarray) -> None:
    stored = ((some_hu.astype(int) + 1100) << 4).astype(np.uint16)
    writer.volume(tmp_path, stored, STEP, BitsStored=12, HighBit=15, RescaleIntercept=-1100)
    assert np.array_equal(read_series(tmp_path)[0].T, some_hu)


@pytest.mark.parametrize("value", [64512, 5000])
def test_padding_becomes_air(tmp_path: Path, writer: Any, some_hu: np.ndarray, value: int) -> None:
    stored = (some_hu.astype(int) + 1024).astype(np.uint16)
    stored[:, :2], stored[:, :, -1] = value, value
    writer.volume(tmp_path, stored, STEP, RescaleIntercept=-1024, PixelPaddingValue=value)
    hu = read_series(tmp_path)[0].T
    assert (hu[:, :2] <= -1000).all()
    assert (hu[:, :, -1] <= -1000).all()
    assert np.array_equal(hu[:, 2:, :-1], some_hu[:, 2:, :-1])


def test_padding_up_to_its_limit_becomes_air(tmp_path: Path, writer: Any, some_hu: np.ndarray) -> None:
    stored = some_hu.copy()
    stored[:, 0], stored[:, 1] = 3000, 3005
    writer.volume(tmp_path, stored, STEP, PixelPaddingValue=3000, PixelPaddingRangeLimit=3010)
    assert (read_series(tmp_path)[0].T[:, :2] <= -1000).all()


@pytest.mark.parametrize("tags", [{}, {"PixelPaddingRangeLimit": -490}, {"PixelPaddingRangeLimit": -510}])
def test_negative_padding_brighter_than_air_becomes_air(
    tmp_path: Path, writer: Any, some_hu: np.ndarray, tags: dict[str, int]
) -> None:
    stored = some_hu.astype(np.int16)
    stored[:, 0] = -500
    hu = read_series(writer.volume(tmp_path, stored, STEP, PixelPaddingValue=-500, **tags))[0].T
    assert (hu[:, 0] <= -1000).all() and np.array_equal(hu[:, 1:], some_hu[:, 1:])


def test_a_padding_value_that_tissue_has_leaves_tissue_alone(tmp_path: Path, writer: Any, some_hu: np.ndarray) -> None:
    """A writer that declares 0 as padding, and has none."""
    stored = some_hu.copy()
    stored[:, 5, 5] = 0
    writer.volume(tmp_path, stored, STEP, PixelPaddingValue=0)
    assert np.array_equal(read_series(tmp_path)[0].T, stored)


def test_padding_darker_than_air_is_left_as_it_is(tmp_path: Path, writer: Any, some_hu: np.ndarray) -> None:
    stored = some_hu.copy()
    stored[:, 0] = -3024
    writer.volume(tmp_path, stored, STEP, PixelPaddingValue=-3024)
    assert np.array_equal(read_series(tmp_path)[0].T, stored)


def test_run_length_encoded_slices_are_read(tmp_path: Path, writer: Any, some_hu: np.ndarray) -> None:
    for path in writer.volume(tmp_path, some_hu, STEP).iterdir():
        dataset = dcmread(path)
        dataset.compress(RLELossless)
        dataset.save_as(path)
    assert np.array_equal(read_series(tmp_path)[0].T, some_hu)


@pytest.mark.parametrize("syntax", ["JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless"])
def test_lossless_compression_changes_no_value(tmp_path: Path, writer: Any, some_hu: np.ndarray, syntax: str) -> None:
    """Compressed by GDCM's own writer."""
    import gdcm

    writer.volume(tmp_path / "plain", some_hu, STEP, RescaleIntercept=-3)
    (tmp_path / "packed").mkdir()
    for path in (tmp_path / "plain").iterdir():
        reader, change, out = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        out.SetFileName(str(tmp_path / "packed" / path.name))
        out.SetFile(reader.GetFile())
        out.SetImage(change.GetOutput())
        assert out.Write()
        assert dcmread(tmp_path / "packed" / path.name).file_meta.TransferSyntaxUID.is_compressed
    assert np.array_equal(read_series(tmp_path / "packed")[0].T, some_hu - 3)


def test_colour_and_damaged_data_are_refused_by_file(tmp_path: Path, writer: Any, some_hu: np.ndarray) -> None:
    path = Path(str(get_testdata_file("SC_rgb_rle.dcm")))
    with pytest.raises(UserError, match=r"SC_rgb_rle\.dcm: it has several values per pixel"):
        hu_of(path, [0])
    writer.volume(tmp_path, some_hu, STEP)
    dataset = dcmread(tmp_path / "i003.dcm")
    dataset.compress(RLELossless)
    whole = dataset.PixelData
    dataset.PixelData = whole[: len(whole) // 2] + b"\0" * (len(whole) - len(whole) // 2)
    dataset.save_as(tmp_path / "i003.dcm")
    with pytest.raises(UserError, match=r"i003\.dcm: its pixel data cannot be read"):
        read_series(tmp_path)


def test_a_compression_that_nothing_decodes_is_refused() -> None:
    """Lossy JPEG of 12 bits: GDCM reads wrong values, so pydicom uses it for none."""
    with pytest.raises(UserError, match=r"JPEG-lossy\.dcm: its pixel data cannot be read .*12-bit"):
        hu_of(Path(str(get_testdata_file("JPEG-lossy.dcm"))), [0])


PYDICOM_CT = (
    "CT_small.dcm",
    "693_J2KI.dcm",
    "JPEGLSNearLossless_16.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "MR_small_bigendian.dcm",
)


@pytest.mark.parametrize("name", PYDICOM_CT)
def test_pydicoms_own_files_have_the_values_of_pydicom_and_numpy(name: str) -> None:
    """Big and little endian, JPEG-LS, JPEG 2000 with another sign than its header, lossy JPEG; any modality."""
    found = get_testdata_file(name)
    if found is None:
        pytest.skip(f"pydicom's {name} is not installed")
    path = Path(str(found))
    dataset = dcmread(path)
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    expected = np.clip(np.rint(dataset.pixel_array * slope + intercept), -32768, 32767)
    (hu,) = hu_of(path, [0])
    assert np.array_equal(hu, expected.reshape(-1, *expected.shape[-2:])[0])
    header = read_header(path)
    assert header is not None
    assert not header.problem
    if "ImagePositionPatient" in dataset:
        assert header.frames[0].position == tuple(float(x) for x in dataset.ImagePositionPatient)
