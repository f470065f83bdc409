"""Files to volumes: one image, whatever its format and axes, comes out the same; bad input is named in one line."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medlord_bench.contracts import LabelMap, Volume
from medlord_bench.errors import MissingError, UserError
from medlord_bench.volumes.checks import check_ct, check_same_grid, missing_regions
from medlord_bench.volumes.io import read_labels, read_volume, write_labels, write_volume

SPACING = (0.8, 1.1, 2.5)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def some_ct(shape: tuple[int, int, int] = (7, 6, 5)) -> np.ndarray:
    return np.random.default_rng(3).integers(-1024, 2000, shape).astype(np.int16)


def itk_image(array: np.ndarray, direction: np.ndarray | None = None) -> sitk.Image:
    """`array` (x, y, z) as an ITK image with a world position."""
    image = sitk.GetImageFromArray(array.T)
    image.SetSpacing(SPACING)
    image.SetOrigin((-30.0, 40.0, -120.0))
    image.SetDirection((np.eye(3) if direction is None else direction).ravel().tolist())
    return image


def world_of(volume: Volume, index: tuple[int, int, int]) -> np.ndarray:
    return (volume.affine @ [*index, 1])[:3]


def assert_world_kept(volume: Volume, image: sitk.Image) -> None:
    """Every voxel's value lies where ITK itself says, ITK's world being LPS."""
    array = sitk.GetArrayViewFromImage(image)
    for x in range(volume.shape[0]):
        for y in range(volume.shape[1]):
            for z in range(volume.shape[2]):
                place = world_of(volume, (x, y, z)) * (-1, -1, 1)
                i, j, k = image.TransformPhysicalPointToIndex(place.tolist())
                assert array[k, j, i] == volume.hu[x, y, z]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd"])
@pytest.mark.parametrize(
    "direction",
    [np.eye(3), np.diag([-1.0, -1.0, 1.0]), np.diag([1.0, -1.0, -1.0]), np.eye(3)[[1, 2, 0]]],
    ids=["identity", "flipped in x and y as 14 scans of LUNA16", "feet first", "permuted"],
)
def test_a_voxel_keeps_its_value_and_place_in_every_format(tmp_path: Path, suffix: str, direction: np.ndarray) -> None:
    image = itk_image(some_ct(), direction)
    sitk.WriteImage(image, str(tmp_path / f"ct{suffix}"))
    volume = read_volume(tmp_path / f"ct{suffix}")
    assert volume.hu.dtype == np.int16
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
    assert_world_kept(volume, image)


def test_nifti_and_metaimage_of_one_array_are_equal(tmp_path: Path) -> None:
    image = itk_image(some_ct(), np.diag([-1.0, -1.0, 1.0]))
    for suffix in (".nii.gz", ".mhd"):
        sitk.WriteImage(image, str(tmp_path / f"ct{suffix}"))
    first, second = read_volume(tmp_path / "ct.nii.gz"), read_volume(tmp_path / "ct.mhd")
    assert np.array_equal(first.hu, second.hu)
    assert np.allclose(first.affine, second.affine, atol=1e-4)


def test_a_compressed_metaimage_is_read(tmp_path: Path) -> None:
    sitk.WriteImage(itk_image(some_ct()), str(tmp_path / "ct.mhd"), useCompression=True)
    assert (tmp_path / "ct.zraw").exists()
    assert np.array_equal(np.sort(read_volume(tmp_path / "ct.mhd").hu, None), np.sort(some_ct(), None))


def test_an_oblique_affine_permutes_axes_and_changes_no_value(tmp_path: Path) -> None:
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    image = itk_image(some_ct(), turn)
    sitk.WriteImage(image, str(tmp_path / "ct.nrrd"))
    volume = read_volume(tmp_path / "ct.nrrd")
    assert_world_kept(volume, image)
    assert np.allclose(volume.spacing, SPACING)


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    stored = np.arange(60, dtype=np.int16).reshape(5, 4, 3)
    image = nib.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(2.0, -1024.0)
    nib.save(image, tmp_path / "ct.nii")
    raw = nib.load(tmp_path / "ct.nii")
    expected = np.asarray(raw.dataobj.get_unscaled()) * raw.dataobj.slope + raw.dataobj.inter
    assert np.array_equal(read_volume(tmp_path / "ct.nii").hu, np.rint(expected))
    assert read_volume(tmp_path / "ct.nii").hu.min() < -900


def test_a_dicom_series_equals_its_pixels_with_rescale(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 3000, (6, 5, 4)).astype(np.int16)
    folder = dicom_series(tmp_path / "series", stored)
    volume = read_volume(folder)
    assert np.array_equal(volume.hu, stored[::-1, ::-1] - 1024)
    assert np.allclose(volume.spacing, SPACING)


def dicom_series(folder: Path, stored: np.ndarray, modality: str = "CT", skip: int | None = None) -> Path:
    """An axial series with intercept -1024, supine, head first."""
    folder.mkdir()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(stored.shape[2]):
        if k == skip:
            continue
        piece = sitk.GetImageFromArray((stored[:, :, k] - 1024).T)
        piece.SetSpacing(SPACING[:2])
        tags = {
            "0008|0060": modality,
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"1.2.3.{k + 1}",
            "0020|000e": "1.2.3.99",
            "0020|000d": "1.2.3.98",
            "0020|0032": f"-10\\-20\\{k * SPACING[2]}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0028|1052": "-1024",
            "0028|1053": "1",
            "0020|0013": str(k),
        }
        for key, value in tags.items():
            piece.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{9 - k}.dcm"))  # names against the slice order
        writer.Execute(piece)
    return folder


def test_the_affine_follows_units_of_metres(tmp_path: Path) -> None:
    image = nib.Nifti1Image(some_ct(), np.diag([0.001, 0.002, 0.003, 1]))
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "ct.nii")
    assert np.allclose(read_volume(tmp_path / "ct.nii").spacing, (1, 2, 3))


# ------------------------------------------------------------------------------------------------------- writing
@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.nii"])
def test_writing_and_reading_is_exact_and_bytes_are_reproducible(tmp_path: Path, name: str) -> None:
    affine = np.array([[0.7, 0, 0, -90], [0, 0.7, 0, 11], [0, 0, 1.25, -400], [0, 0, 0, 1]])
    volume = Volume(some_ct(), affine)
    write_volume(tmp_path / name, volume)
    first = (tmp_path / name).read_bytes()
    write_volume(tmp_path / name, volume)
    assert (tmp_path / name).read_bytes() == first
    back = read_volume(tmp_path / name)
    assert np.array_equal(back.hu, volume.hu)
    assert np.allclose(back.affine, affine, atol=1e-4)
    assert list(tmp_path.iterdir()) == [tmp_path / name]  # no temporary file stays
    header = nib.load(tmp_path / name).header
    assert header.get_xyzt_units()[0] == "mm"
    assert header.get_data_dtype() == np.int16


def test_another_reader_sees_what_was_written_where_it_was(tmp_path: Path) -> None:
    volume = Volume(some_ct(), np.diag([0.7, 0.9, 1.25, 1.0]))
    write_volume(tmp_path / "ct.nii.gz", volume)
    assert_world_kept(volume, sitk.ReadImage(str(tmp_path / "ct.nii.gz")))


def test_labels_come_back_with_their_names(tmp_path: Path) -> None:
    labels = LabelMap(np.random.default_rng(0).integers(0, 3, (5, 4, 3)).astype(np.uint8), np.eye(4), {1: "a", 2: "b"})
    write_labels(tmp_path / "m.nii.gz", labels)
    back = read_labels(tmp_path / "m.nii.gz", labels.names)
    assert np.array_equal(back.labels, labels.labels)
    assert np.array_equal(back.region("b"), labels.labels == 2)


def test_labels_beyond_255_are_renumbered_with_their_names(tmp_path: Path) -> None:
    values = np.array([0, 205, 420, 850], dtype=np.int16)[np.random.default_rng(0).integers(0, 4, (5, 4, 3))]
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "m.nii")
    names = {850: "pulmonary_artery", 205: "lv_myocardium", 420: "left_atrium", 600: "right_ventricle"}
    back = read_labels(tmp_path / "m.nii", names)
    for value in (205, 420, 850):
        assert np.array_equal(back.region(names[value]), values == value)


def test_a_name_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.mha.*\.nii"):
        write_volume(tmp_path / "x.mha", Volume(some_ct(), np.eye(4)))


# ------------------------------------------------------------------------------------------------------ bad input
def _save(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def _rgb(folder: Path) -> Path:
    colour = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    return _save(folder / "rgb.nii", colour)


def _rgb_mha(folder: Path) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 4, 4, 3), np.uint8), isVector=True), str(folder / "rgb.mha"))
    return folder / "rgb.mha"


def _empty(folder: Path, name: str) -> Path:
    (folder / name).touch()
    return folder / name


def _truncated(folder: Path, name: str, packed: bool) -> Path:
    whole = _save(folder / "whole.nii", some_ct((20, 20, 20))).read_bytes()
    data = gzip.compress(whole) if packed else whole
    (folder / name).write_bytes(data[: len(data) // 2])
    return folder / name


def _mha_truncated(folder: Path) -> Path:
    sitk.WriteImage(itk_image(some_ct((20, 20, 20))), str(folder / "cut.mha"))
    data = (folder / "cut.mha").read_bytes()
    (folder / "cut.mha").write_bytes(data[: len(data) // 2])
    return folder / "cut.mha"


def _mhd_alone(folder: Path) -> Path:
    sitk.WriteImage(itk_image(some_ct()), str(folder / "alone.mhd"))
    (folder / "alone.raw").unlink()
    return folder / "alone.mhd"


def _nan(folder: Path) -> Path:
    values = some_ct().astype(np.float32)
    values[1, 2, 3] = np.nan
    return _save(folder / "nan.nii", values)


def _singular(folder: Path) -> Path:
    image = nib.Nifti1Image(some_ct(), np.eye(4))
    image.header["sform_code"], image.header["qform_code"] = 1, 0
    image.header["srow_z"] = 0
    image.to_filename(folder / "singular.nii")
    data = bytearray((folder / "singular.nii").read_bytes())
    data[312:328] = bytes(16)  # srow_z
    data[254:256] = (1).to_bytes(2, "little")
    (folder / "singular.nii").write_bytes(data)
    return folder / "singular.nii"


def _no_orientation(folder: Path) -> Path:
    image = nib.Nifti1Image(some_ct(), None)
    nib.save(image, folder / "lost.nii")
    return folder / "lost.nii"


def _text(folder: Path) -> Path:
    (folder / "text.nii").write_text("not an image, but long enough to be taken for a header" * 20)
    return folder / "text.nii"


def _png(folder: Path) -> Path:
    (folder / "ct.png").write_bytes(b"\x89PNG")
    return folder / "ct.png"


def _no_series(folder: Path) -> Path:
    (folder / "none").mkdir()
    return folder / "none"


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "4-D": (lambda f: _save(f / "four.nii", np.zeros((4, 4, 4, 2), np.int16)), "3-D"),
    "2-D": (lambda f: _save(f / "two.nii", np.zeros((4, 4), np.int16)), "3-D"),
    "RGB NIfTI": (_rgb, "one number per voxel"),
    "RGB MetaImage": (_rgb_mha, "3-D|one number"),
    "empty NIfTI": (lambda f: _empty(f, "e.nii.gz"), "empty"),
    "empty MetaImage": (lambda f: _empty(f, "e.mha"), "empty"),
    "truncated .nii": (lambda f: _truncated(f, "cut.nii", False), "incomplete"),
    "truncated .nii.gz": (lambda f: _truncated(f, "cut.nii.gz", True), "incomplete"),
    "truncated .mha": (_mha_truncated, "incomplete"),
    ".mhd without .raw": (_mhd_alone, "incomplete.*raw"),
    "NaN": (_nan, "1 voxels are NaN"),
    "singular affine": (_singular, "singular"),
    "no orientation": (_no_orientation, "qform_code"),
    "text": (_text, "incomplete"),
    "wrong extension": (_png, r"\.png.*expected \.nii"),
    "folder without DICOM": (_no_series, "no DICOM series"),
    "MR DICOM": (lambda f: dicom_series(f / "mr", some_ct((4, 4, 3)), modality="MR"), "Modality is 'MR'"),
    "missing slice": (lambda f: dicom_series(f / "gap", some_ct((4, 4, 6)), skip=3), "slices are missing"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_line_with_the_file_and_what_to_do(tmp_path: Path, kind: str) -> None:
    make, expected = BAD[kind]
    path = make(tmp_path)
    with pytest.raises(UserError, match=expected) as error:
        read_volume(path)
    text = str(error.value)
    assert len(text.splitlines()) == 1
    assert path.name in text
    advice = ("again", "repair", "convert it", "exclude", "give", "split it", "save the file")
    assert any(word in text for word in advice)


def test_a_missing_file_exits_with_3(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="nothing.nii"):
        read_volume(tmp_path / "nothing.nii")


def test_a_trailing_axis_of_one_is_no_fourth_dimension(tmp_path: Path) -> None:
    path = _save(tmp_path / "ct.nii", some_ct()[..., None])
    assert np.array_equal(read_volume(path).hu, some_ct())


def test_unknown_labels_are_named(tmp_path: Path) -> None:
    path = _save(tmp_path / "m.nii", np.array([0, 1, 7, 9], np.uint8).reshape(2, 2, 1))
    with pytest.raises(UserError, match=r"m\.nii: label values 7, 9 .*1 aorta.*label_names"):
        read_labels(path, {1: "aorta"})


def test_fractional_labels_are_refused(tmp_path: Path) -> None:
    path = _save(tmp_path / "m.nii", np.array([0, 1, 0.5, 1], np.float32).reshape(2, 2, 1))
    with pytest.raises(UserError, match=r"0\.5"):
        read_labels(path, {1: "aorta"})


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).random((8, 8, 8)),
        np.random.default_rng(0).uniform(-1, 1, (8, 8, 8)),
        np.random.default_rng(0).integers(0, 4095, (8, 8, 8)),
        np.zeros((8, 8, 8)),
    ],
    ids=["[0,1]", "[-1,1]", "no intercept", "constant"],
)
def test_what_cannot_be_hu_is_refused_as_ct(tmp_path: Path, values: np.ndarray) -> None:
    path = _save(tmp_path / "x.nii", values.astype(np.float32))
    with pytest.raises(UserError, match=r"x\.nii: not a CT.*dataset\.exclude"):
        check_ct(read_volume(path), path)


def test_padding_far_below_air_is_no_error(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(0, 100, (8, 8, 8)).astype(np.float32)
    values[:2] = -32768
    values[2:3] = -2000
    volume = read_volume(_save(tmp_path / "x.nii", values))
    check_ct(volume, "x")
    assert volume.hu.min() == -32768


def test_values_beyond_int16_are_held_at_its_ends(tmp_path: Path) -> None:
    values = np.full((4, 4, 4), -1000.0, np.float32)
    values[0, 0, 0], values[1, 1, 1] = 1e6, -1e6
    volume = read_volume(_save(tmp_path / "x.nii", values))
    assert (volume.hu.min(), volume.hu.max()) == (-32768, 32767)


def _mask(shape: tuple[int, int, int], shift: float) -> LabelMap:
    affine = np.eye(4)
    affine[2, 3] = shift
    return LabelMap(np.zeros(shape, np.uint8), affine, {1: "a"})


def test_a_mask_on_another_grid_is_refused_with_both_files() -> None:
    volume = Volume(some_ct((4, 4, 4)), np.eye(4))
    with pytest.raises(UserError, match=r"mask\.nii.*image\.nii.*246 mm"):
        check_same_grid(volume, _mask((4, 4, 4), 246.0), "image.nii", "mask.nii")
    with pytest.raises(UserError, match=r"mask\.nii.*\(4, 4, 5\).*image\.nii"):
        check_same_grid(volume, _mask((4, 4, 5), 0.0), "image.nii", "mask.nii")
    check_same_grid(volume, _mask((4, 4, 4), 0.05), "image.nii", "mask.nii")  # rounding of headers


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("end", [0, 1])
def test_a_mask_that_is_off_at_one_end_alone_is_refused(axis: int, end: int) -> None:
    """Its voxels are 10 % larger along one axis, and the first or the last of them lies where the image has it."""
    volume = Volume(some_ct((6, 5, 7)), np.eye(4))
    scaled = np.eye(4)
    scaled[axis, axis] = 1.1
    scaled[axis, 3] = -0.1 * (volume.shape[axis] - 1) * end
    off = 0.1 * (volume.shape[axis] - 1)
    with pytest.raises(UserError, match=rf"differs from that of image\.nii by up to {off:.3g} mm"):
        check_same_grid(volume, LabelMap(np.zeros((6, 5, 7), np.uint8), scaled, {1: "a"}), "image.nii", "mask.nii")


@pytest.mark.parametrize(("shift", "same"), [(0.04, True), (0.07, False)])
def test_a_tenth_of_the_smallest_voxel_side_is_allowed_in_any_orientation(shift: float, same: bool) -> None:
    """Voxels of 0.5 x 1 x 3 mm, turned by 45 degrees, so that no row of the affine is as short as 0.5."""
    half = 0.5**0.5
    affine = np.eye(4)
    affine[:3, :3] = np.array([[half, 0, -half], [0, 1, 0], [half, 0, half]]) * (0.5, 1.0, 3.0)
    moved = affine.copy()
    moved[1, 3] += shift
    volume, labels = Volume(some_ct((4, 4, 4)), affine), LabelMap(np.zeros((4, 4, 4), np.uint8), moved, {1: "a"})
    if same:
        check_same_grid(volume, labels, "image.nii", "mask.nii")
        return
    with pytest.raises(UserError, match="differs"):
        check_same_grid(volume, labels, "image.nii", "mask.nii")


def test_missing_and_cropped_regions_are_told_apart() -> None:
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[2:4, 2:4, 2:4], labels[0, 3, 3] = 1, 2
    found = missing_regions(LabelMap(labels, np.eye(4), {1: "a", 2: "b", 3: "c"}), ["a", "b", "c", "d"])
    assert found == (["c", "d"], ["b"])
