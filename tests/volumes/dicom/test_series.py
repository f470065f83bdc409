"""Which files make a series: what is no volume is left out by kind, what is damaged is refused by name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medlord_bench.errors import UserError
from medlord_bench.volumes.dicom.headers import is_dicom, read_header
from medlord_bench.volumes.dicom.series import read_series, series_of
from medlord_bench.volumes.io import read_volume
from medlord_bench.volumes.listing import listed

CORONAL = [1, 0, 0, 0, 0, -1]


@pytest.fixture
def folder(tmp_path: Path, writer: Any, some_hu: np.ndarray) -> Path:
    return writer.volume(tmp_path / "p1", some_hu, (0, 0, 2.5))  # type: ignore[no-any-return]


def test_a_localizer_by_its_type_or_its_orientation_is_left_out(folder: Path, writer: Any, some_hu: np.ndarray) -> None:
    scout = np.zeros((30, 8), np.int16)
    writer.slice(folder / "a_scout.dcm", scout, (0, 0, 500), ImageOrientationPatient=CORONAL)
    writer.slice(folder / "b_scout.dcm", some_hu[0], (0, 0, 0), ImageType=["DERIVED", "PRIMARY", "LOCALIZER"])
    kinds = {one.kind: len(one.headers) for one in series_of(folder)}
    assert kinds == {"localizer": 2, "ct": 7}
    assert read_series(folder)[0].shape == (13, 10, 7)


def test_a_copy_counts_once_and_a_changed_copy_is_refused(folder: Path, some_hu: np.ndarray) -> None:
    shutil.copy(folder / "i002.dcm", folder / "i002 (1).dcm")
    (series,) = series_of(folder)
    assert [path.name for path in series.copies] == ["i002 (1).dcm"]
    assert read_series(folder)[0].shape[2] == 7
    changed = dcmread(folder / "i002.dcm")
    changed.PixelData = bytes(len(changed.PixelData))
    changed.save_as(folder / "i002 (1).dcm")
    with pytest.raises(UserError, match=r"i002 \(1\)\.dcm and i002\.dcm have one SOPInstanceUID"):
        read_series(folder)


@pytest.mark.parametrize("bytes_left", [60, 400, 900])
def test_a_file_that_is_cut_short_is_named(folder: Path, bytes_left: int) -> None:
    """In its pixel data, in its header, in its first elements."""
    path = folder / "i004.dcm"
    size = path.stat().st_size
    os.truncate(path, {60: size - 60, 400: 400, 900: 900}[bytes_left])
    with pytest.raises(UserError, match=r"i004\.dcm: cut short"):
        read_series(folder)


@pytest.mark.parametrize("explicit", [True, False])
def test_one_byte_that_is_missing_is_seen(folder: Path, explicit: bool) -> None:
    path = folder / "i004.dcm"
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian
    dataset.save_as(path, implicit_vr=not explicit, little_endian=True)
    size, needed = path.stat().st_size, len(dataset.PixelData)
    assert read_header(path).problem == ""  # type: ignore[union-attr]
    os.truncate(path, size - 1)
    assert read_header(path).problem == f"cut short: {needed - 1} of {needed} bytes of pixel data are there"  # type: ignore[union-attr]


@pytest.mark.parametrize(("rows", "columns"), [(96, 87), (7, 23)])
def test_a_letter_in_an_implicit_length_is_no_value_representation(
    tmp_path: Path, writer: Any, rows: int, columns: int
) -> None:
    """16704 bytes are 0x4140 and 322 are 0x0142: one byte of each is a letter, as both of "OW" are."""
    path = writer.slice(tmp_path / "a.dcm", np.zeros((rows, columns), np.int16), (0, 0, 0))
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(path, implicit_vr=True, little_endian=True)
    assert read_header(path).problem == ""  # type: ignore[union-attr]
    os.truncate(path, path.stat().st_size - 10)
    assert "of pixel data are there" in read_header(path).problem  # type: ignore[union-attr]


@pytest.mark.parametrize(("size", "dicom"), [(131, False), (132, True)])
def test_a_file_without_preamble_has_132_bytes_or_more(folder: Path, size: int, dicom: bool) -> None:
    path = folder / "i004.dcm"
    path.write_bytes(path.read_bytes()[132 : 132 + size])
    assert is_dicom(path) is dicom


def test_a_file_without_preamble_is_dicom_and_a_text_is_not(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[132:])
    assert read_series(folder)[0].shape == (13, 10, 7)
    text = folder / "README"
    text.write_text("\x08\x00 begins as an element does, and then goes on with words" * 10)
    assert not is_dicom(text)


def test_other_modalities_and_one_slice_are_kinds_of_their_own(
    tmp_path: Path, new_writer: Callable[[], Any], some_hu: np.ndarray
) -> None:
    new_writer().volume(tmp_path, some_hu[:2], (0, 0, 1), Modality="PT")
    new_writer().slice(tmp_path / "one.dcm", some_hu[0], (0, 0, 0))
    assert sorted((one.kind, one.what) for one in series_of(tmp_path)) == [("not CT", "PT"), ("one slice", "CT")]
    with pytest.raises(UserError, match="Modality is 'PT'"):
        read_series(tmp_path)


def test_two_series_of_one_folder_are_read_by_a_file_of_each(
    tmp_path: Path, new_writer: Callable[[], Any], some_hu: np.ndarray
) -> None:
    new_writer().volume(tmp_path, some_hu, (0, 0, 2))
    for k, plane in enumerate(some_hu[:4]):
        new_writer.series = "1.2.3.4"  # type: ignore[attr-defined]
        writer = new_writer()
        writer.series = "1.2.3.4"
        writer.slice(tmp_path / f"z{k}.dcm", plane + 1, (0, 0, 5 * k))
    with pytest.raises(UserError, match="2 DICOM series of CT"):
        read_series(tmp_path)
    hu, affine = read_series(tmp_path / "z2.dcm")
    assert (hu.shape, affine[2, 2]) == ((13, 10, 4), 5)


def test_a_dicomdir_is_no_image() -> None:
    path = get_testdata_file("DICOMDIR")
    assert path is not None
    assert read_header(Path(str(path))) is None


def test_a_slice_of_another_size_is_named(folder: Path, writer: Any) -> None:
    writer.slice(folder / "wide.dcm", np.zeros((10, 20), np.int16), (-9, 5, 80 + 7 * 2.5))
    with pytest.raises(UserError, match=r"wide\.dcm has 20x10 pixels, the others 13x10"):
        read_series(folder)


def test_order_of_names_and_of_instances_decides_nothing(folder: Path, some_hu: np.ndarray) -> None:
    for number, path in enumerate(sorted(folder.iterdir())):
        dataset = dcmread(path)
        dataset.InstanceNumber, dataset.SliceLocation = (number * 5) % 7, 1.0
        dataset.SliceThickness, dataset.SpacingBetweenSlices = 9, 9
        dataset.save_as(path)
    hu, affine = read_series(folder)
    assert np.array_equal(hu.T, some_hu)
    assert affine[2, 2] == 2.5


def test_a_damaged_file_of_another_modality_stops_no_ct(
    folder: Path, new_writer: Callable[[], Any], some_hu: np.ndarray
) -> None:
    path = new_writer().slice(folder / "xray.dcm", some_hu[0], (0, 0, 0), Modality="DX")
    os.truncate(path, path.stat().st_size - 50)
    assert read_series(folder)[0].shape == (13, 10, 7)
    assert {one.kind: one.what for one in series_of(folder)} == {"not CT": "DX", "ct": "CT"}


def test_a_file_named_as_dicom_that_is_empty_is_refused(folder: Path) -> None:
    """The last slice: without it the others are even, and nothing would be missed."""
    (folder / "i001.dcm").write_bytes(b"")
    listing = listed(folder.parent)
    assert len(listing.problems) == 1
    assert "i001.dcm: its name is that of DICOM, its content (0 bytes) is not" in listing.problems[0]


def test_an_intercept_that_one_slice_lacks_is_refused(folder: Path) -> None:
    slice_ = dcmread(folder / "i003.dcm")
    del slice_.RescaleIntercept
    slice_.save_as(folder / "i003.dcm")
    with pytest.raises(UserError, match=r"p1: RescaleIntercept is missing in i003\.dcm, the others have it"):
        read_series(folder)


def test_deflated_files_are_read_and_named_when_cut_short(folder: Path, some_hu: np.ndarray) -> None:
    before, _ = read_series(folder)
    for path in folder.iterdir():
        slice_ = dcmread(path)
        slice_.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
        slice_.save_as(path, enforce_file_format=True)
    np.testing.assert_array_equal(read_series(folder)[0], before)
    cut = folder / "i003.dcm"
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"i003\.dcm: cut short"):
        read_series(folder)


@pytest.mark.parametrize(
    "tags", [{"Rows": 65535, "Columns": 65535}, {"NumberOfFrames": 2**31 - 1}, {"NumberOfFrames": 40}]
)
def test_sizes_that_the_file_cannot_have_are_refused_before_anything_is_allocated(
    tmp_path: Path, writer: Any, some_hu: np.ndarray, tags: dict[str, int]
) -> None:
    folder = writer.volume(tmp_path / "d", some_hu, (0, 0, 2))
    writer.slice(folder / "i003.dcm", some_hu[4], (-9, 5, 88), **tags)
    with pytest.raises(
        UserError, match=r"i003\.dcm: .*(declares \d+ frames of \d+ x \d+ pixels|NumberOfFrames is 2147483647)"
    ):
        read_volume(folder)


@pytest.mark.parametrize("slope", ["1e30", "inf", "nan"])
def test_a_slope_that_no_hu_have_is_refused(tmp_path: Path, writer: Any, some_hu: np.ndarray, slope: str) -> None:
    folder = writer.volume(tmp_path / "d", some_hu, (0, 0, 2), RescaleSlope=1.5)
    for path in folder.iterdir():  # the writer of pydicom refuses them
        path.write_bytes(
            path.read_bytes().replace(
                b"\x28\x00\x53\x10DS\x04\x001.5 ", b"\x28\x00\x53\x10DS\x04\x00" + slope.ljust(4).encode()
            )
        )
    with pytest.raises(UserError, match=f"its slope is {float(slope):g}".replace("+", "[+]")):
        read_volume(folder)
