"""Headers of NIfTI, MetaImage and NRRD: read by content, checked before any voxel is allocated."""

from __future__ import annotations

import gzip
import logging
import os
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medlord_bench.contracts import Volume
from medlord_bench.errors import MissingError, UserError
from medlord_bench.volumes.checks import check_voxel_size
from medlord_bench.volumes.headers import declared_shape, has_one_slice
from medlord_bench.volumes.io import read_labels, read_volume


def some_hu(shape: tuple[int, int, int] = (9, 8, 7)) -> np.ndarray:
    return np.random.default_rng(1).integers(-1000, 900, shape).astype(np.int16)


def nifti(path: Path, values: np.ndarray | None = None, kind: type = nib.Nifti1Image) -> Path:
    image = kind(some_hu() if values is None else values, np.diag([2, 2, 3, 1.0]))
    nib.save(image, path)
    return path


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("stored", [".nii", ".nii.gz"])
@pytest.mark.parametrize("named", [".nii", ".nii.gz"])
def test_content_decides_whether_a_file_is_compressed(tmp_path: Path, stored: str, named: str, kind: type) -> None:
    nifti(tmp_path / f"a{stored}", kind=kind).rename(tmp_path / f"b{named}")
    volume = read_volume(tmp_path / f"b{named}")
    assert np.array_equal(volume.hu, some_hu())
    assert volume.spacing == (2, 2, 3)
    assert declared_shape(tmp_path / f"b{named}") == (9, 8, 7)


@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_declares_more_than_its_file_allocates_nothing(tmp_path: Path, packed: bool) -> None:
    content = bytearray(nifti(tmp_path / "a.nii").read_bytes())
    content[42:48] = struct.pack("<3h", 20000, 25000, 30000)
    path = tmp_path / ("b.nii.gz" if packed else "b.nii")
    path.write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))
    with pytest.raises(UserError, match=r"b\.nii.*declares 20000 x 25000 x 30000 voxels, 30000000000000 bytes"):
        read_volume(path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("slope", "intercept"), [(1e30, 0), (float("inf"), 0), (1, 1e9)])
def test_a_slope_or_intercept_that_no_hu_have_is_refused(
    tmp_path: Path, packed: bool, slope: float, intercept: float
) -> None:
    content = bytearray(nifti(tmp_path / "a.nii").read_bytes())
    content[112:120] = struct.pack("<2f", slope, intercept)
    path = tmp_path / ("b.nii.gz" if packed else "b.nii")
    path.write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))
    with pytest.raises(
        UserError, match=r"b\.nii.*: its (slope|intercept) is (1e\+30|inf|1e\+09); expected a finite number"
    ):
        read_volume(path)


@pytest.mark.parametrize("slope", [0.0, float("nan")])
def test_a_slope_of_zero_or_nan_scales_nothing(tmp_path: Path, slope: float) -> None:
    content = bytearray(nifti(tmp_path / "a.nii").read_bytes())
    content[112:120] = struct.pack("<2f", slope, 1e30)
    (tmp_path / "b.nii").write_bytes(content)
    assert np.array_equal(read_volume(tmp_path / "b.nii").hu, some_hu())


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_packed_file_too_small_for_what_its_header_declares_allocates_nothing(tmp_path: Path, suffix: str) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(some_hu().T), str(tmp_path / f"a{suffix}"), useCompression=True)
    content = (tmp_path / f"a{suffix}").read_bytes()
    path = tmp_path / f"b{suffix}"
    path.write_bytes(content.replace(b"9 8 7", b"1200 1300 1400", 1))
    with pytest.raises(UserError, match=r"b\..*: incomplete image: \d+ bytes, expected 4232558 or more"):
        read_volume(path)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mha", "folder"])
def test_a_pipe_is_not_opened(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=f"{name}: is a pipe, socket or device; expected a file"):
        read_volume(tmp_path / name)


def test_a_negative_label_is_named(tmp_path: Path) -> None:
    values = np.zeros((4, 4, 4), np.int16)
    values[1, 1, 1] = -1
    with pytest.raises(UserError, match="label value -1; expected values from 0"):
        read_labels(nifti(tmp_path / "m.nii", values), {1: "aorta"})


def test_a_field_that_ends_itks_process_is_refused_and_a_long_value_of_the_user_is_not(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(some_hu().T), str(tmp_path / "a.nrrd"))
    content = (tmp_path / "a.nrrd").read_bytes()
    (tmp_path / "b.nrrd").write_bytes(content.replace(b"space: left", b"space: " + b"{" * 3000 + b"left", 1))
    with pytest.raises(UserError, match=r"b\.nrrd: line \d of its header has 30\d\d letters"):
        read_volume(tmp_path / "b.nrrd")
    (tmp_path / "c.nrrd").write_bytes(content.replace(b"\n\n", b"\nTags:=" + b"tag " * 3000 + b"\n\n", 1))
    assert np.array_equal(read_volume(tmp_path / "c.nrrd").hu, read_volume(tmp_path / "a.nrrd").hu)


@pytest.mark.parametrize("axes", ["91999999999", "0", "-3", "11", "3\nNDims = 4", "", "x"])
def test_axes_that_end_itks_process_are_refused(tmp_path: Path, axes: str) -> None:
    path = metaimage(tmp_path, NDims=axes)
    with pytest.raises(UserError, match=r"a\.mhd: field NDims: .*expected the number of axes"):
        read_volume(path)


def test_a_volume_larger_than_the_machine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    class Small:
        total = 900

    monkeypatch.setattr(psutil, "virtual_memory", Small)
    with pytest.raises(UserError, match=r"a\.nii: its header declares 9 x 8 x 7 voxels.*memory of this machine"):
        read_volume(nifti(tmp_path / "a.nii"))


def test_two_forms_that_disagree_are_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = nib.Nifti1Image(some_hu(), np.diag([2, 2, 3, 1.0]))
    image.set_sform(np.diag([2, 2, 3, 1.0]), 1)
    image.set_qform(np.diag([2, 2, 5, 1.0]), 1)
    image.header["pixdim"][1:4] = 2, 2, 5
    nib.save(image, tmp_path / "a.nii")
    monkeypatch.setattr(logging.getLogger("medlord_bench"), "propagate", True)
    with caplog.at_level(logging.WARNING, "medlord_bench"):
        assert read_volume(tmp_path / "a.nii").spacing == (2, 2, 3)
    assert "a.nii: its sform and qform differ by up to 12 mm; the sform is used" in caplog.text


@pytest.mark.parametrize(
    ("size", "ok"), [((0.06, 0.06, 0.1), True), ((1, 1, 20), True), ((0.002, 0.002, 0.003), False), ((1, 1, 25), False)]
)
def test_voxel_sizes_that_no_ct_has(size: tuple[float, float, float], ok: bool) -> None:
    volume = Volume(some_hu((24, 20, 12)), np.diag([*size, 1.0]))
    if ok:
        check_voxel_size(volume, "a.nii")
        return
    with pytest.raises(UserError, match=r"a\.nii: voxels of .* mm, a field of view of"):
        check_voxel_size(volume, "a.nii")


@pytest.mark.parametrize(("shift", "warned"), [(0.1, False), (4.0, True)])
def test_two_forms_that_are_shifted_are_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, shift: float, warned: bool
) -> None:
    """From a tenth of a voxel of 2 mm on."""
    moved = np.diag([2, 2, 3, 1.0])
    moved[0, 3] = shift
    image = nib.Nifti1Image(some_hu(), np.diag([2, 2, 3, 1.0]))
    image.set_sform(np.diag([2, 2, 3, 1.0]), 1)
    image.set_qform(moved, 1)
    nib.save(image, tmp_path / "a.nii")
    monkeypatch.setattr(logging.getLogger("medlord_bench"), "propagate", True)
    with caplog.at_level(logging.WARNING, "medlord_bench"):
        read_volume(tmp_path / "a.nii")
    assert ("its sform and qform differ by up to 4 mm" in caplog.text) is warned
    assert ("differ" in caplog.text) is warned


@pytest.mark.parametrize(("unit", "in_mm"), [("meter", 1000), ("mm", 1), ("micron", 1 / 1000), ("unknown", 1)])
def test_the_header_s_unit_of_length_is_heeded(tmp_path: Path, unit: str, in_mm: float) -> None:
    image = nib.Nifti1Image(some_hu(), np.diag([2 / in_mm, 2 / in_mm, 3 / in_mm, 1.0]))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")
    assert read_volume(tmp_path / "a.nii").spacing == pytest.approx((2, 2, 3), rel=1e-6)


@pytest.mark.parametrize("noise", [3e-7, -9e-4])
def test_labels_with_noise_are_whole_numbers(tmp_path: Path, noise: float) -> None:
    values = np.array([0, 1, 2, 7], np.float32).reshape(2, 2, 1) * (1 + noise / 7)
    labels = read_labels(nifti(tmp_path / "m.nii", values), {1: "a", 2: "b", 7: "c"})
    assert sorted(np.unique(labels.labels)) == [0, 1, 2, 7]


def test_labels_with_a_slope_are_whole_numbers(tmp_path: Path) -> None:
    stored = np.array([0, 51, 255, 102], np.uint8).reshape(2, 2, 1)
    image = nib.Nifti1Image(stored, np.diag([2, 2, 3, 1.0]))
    image.header.set_slope_inter(np.float32(1 / 51), 0)
    content = bytearray(image.to_bytes())
    content[112:120] = struct.pack("<2f", 1 / 51, 0)
    (tmp_path / "m.nii").write_bytes(bytes(content))
    labels = read_labels(tmp_path / "m.nii", {1: "a", 2: "b", 5: "c"})
    assert sorted(np.unique(labels.labels)) == [0, 1, 2, 5]


def test_an_unknown_label_is_shown_in_full(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"label values 1\.003999"):
        read_labels(nifti(tmp_path / "m.nii", np.full((2, 2, 1), 1.004, np.float32)), {1: "a"})


def metaimage(folder: Path, **changes: str) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(some_hu().T), str(folder / "a.mhd"))
    path = folder / "a.mhd"
    lines = [line.partition(" = ") for line in path.read_text().splitlines()]
    path.write_text("\n".join(f"{key} = {changes.get(key, value)}" for key, _, value in lines) + "\n")
    return path


@pytest.mark.parametrize("named", ["moved.raw", r"C:\data\a.raw", "sub/a.raw"])
def test_a_missing_data_file_is_named_with_its_size(tmp_path: Path, named: str) -> None:
    with pytest.raises(UserError) as error:
        read_volume(metaimage(tmp_path, ElementDataFile=named))
    assert "its data file" in str(error.value)
    assert Path(named).name in str(error.value)
    assert f"({9 * 8 * 7 * 2} bytes)" in str(error.value)


def test_a_short_data_file_is_named_with_both_sizes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = metaimage(tmp_path)
    (tmp_path / "a.raw").write_bytes((tmp_path / "a.raw").read_bytes()[:-100])
    with pytest.raises(UserError, match=r"data file a\.raw has 908 bytes, expected 1008"):
        read_volume(path)
    assert capfd.readouterr().err == ""  # ITK's own words would be printed


def test_a_short_data_file_of_nrrd_is_named(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(some_hu().T), str(tmp_path / "a.nhdr"))
    data = next(path for path in tmp_path.iterdir() if path.suffix == ".raw")
    data.write_bytes(data.read_bytes()[:500])
    with pytest.raises(UserError, match=r"data file a\.raw has 500 bytes, expected 1008"):
        read_volume(tmp_path / "a.nhdr")


def test_compressed_data_files_and_values_in_the_header_are_read(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(some_hu().T)
    for name in ("a.mha", "b.mhd", "c.nrrd", "d.nhdr"):
        sitk.WriteImage(image, str(tmp_path / name), useCompression=name in ("b.mhd", "d.nhdr"))
        assert read_volume(tmp_path / name).hu.shape == (9, 8, 7)
        assert declared_shape(tmp_path / name) == (9, 8, 7)


def test_a_pointer_is_no_damaged_image(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(MissingError, match=r"a\.nii\.gz: a link or pointer.*git lfs pull"):
        read_volume(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(
    ("shape", "flat"), [((5, 4, 1), True), ((5, 4), True), ((5, 4, 3), False), ((1, 5, 4, 3), False)]
)
def test_one_slice_is_seen_in_the_header(tmp_path: Path, shape: tuple[int, ...], flat: bool) -> None:
    assert has_one_slice(nifti(tmp_path / "a.nii.gz", np.zeros(shape, np.int16))) is flat


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd"])
def test_names_that_are_not_utf_8_are_read(tmp_path: Path, suffix: str) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller"))
    folder.mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(some_hu().T), str(tmp_path / f"a{suffix}"))
    for path in [path for path in tmp_path.iterdir() if path.is_file()]:
        path.rename(folder / path.name)
    (folder / f"a{suffix}").rename(Path(os.fsdecode(os.fsencode(folder) + b"/\xe4" + suffix.encode())))
    found = next(path for path in folder.iterdir() if path.suffix == suffix)
    assert np.array_equal(np.sort(read_volume(found).hu.ravel()), np.sort(some_hu().ravel()))


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@pytest.mark.parametrize("packed", [False, True])
def test_values_in_the_same_file_that_are_cut_short_are_refused(tmp_path: Path, suffix: str, packed: bool) -> None:
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(some_hu().T), str(path), useCompression=packed)
    assert read_volume(path).hu.shape == (9, 8, 7)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(UserError, match=rf"a\{suffix}: incomplete image"):
        read_volume(path)
