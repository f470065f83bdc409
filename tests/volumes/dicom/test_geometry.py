"""Positions decide the geometry: any orientation and tilt equals the arithmetic of the standard to 1e-3 mm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from medlord_bench.errors import UserError
from medlord_bench.volumes.dicom.series import read_series
from medlord_bench.volumes.io import read_volume

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def tilted(degrees: float) -> tuple[float, ...]:
    """The plane of a gantry that leans by so much about the x axis."""
    angle = np.radians(degrees)
    return (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle)))


CASES: dict[str, tuple[tuple[float, ...], tuple[float, float, float]]] = {
    "head first supine": ((1, 0, 0, 0, 1, 0), (0, 0, 2.5)),
    "feet first supine": ((-1, 0, 0, 0, 1, 0), (0, 0, -2.5)),
    "head first prone": ((-1, 0, 0, 0, -1, 0), (0, 0, 2.5)),
    "decubitus right": ((0, -1, 0, 1, 0, 0), (0, 0, 2.5)),
    "decubitus left": ((0, 1, 0, -1, 0, 0), (0, 0, 1.25)),
    "tilt 7": (tilted(7), (0, 0, 2.5)),
    "tilt 25": (tilted(25), (0, 0, 4.0)),
    "tilt -13 about y": ((float(np.cos(0.227)), 0, float(np.sin(0.227)), 0, 1, 0), (0, 0, 3.0)),
    "oblique": ((0.8, 0.6, 0, -0.48, 0.64, 0.6), (1.08, -1.44, 2.4)),
    "coronal": ((1, 0, 0, 0, 0, -1), (0, 3.0, 0)),
}


@pytest.mark.parametrize("name", CASES)
def test_every_voxel_lies_where_its_file_says(tmp_path: Path, writer: Any, some_hu: np.ndarray, name: str) -> None:
    """The value at each world position, from pydicom and the equation of PS3.3 C.7.6.2.1.1 alone."""
    orientation, step = CASES[name]
    folder = writer.volume(tmp_path / "s", some_hu, step, ImageOrientationPatient=list(orientation))
    volume = read_volume(folder)
    inverse = np.linalg.inv(volume.affine)
    checked = 0
    for path in folder.iterdir():
        dataset = dcmread(path)
        row, column = (np.array(dataset.ImageOrientationPatient[at : at + 3], float) for at in (0, 3))
        down, across = (float(x) for x in dataset.PixelSpacing)
        for r, c in ((0, 0), (9, 0), (4, 11), (9, 12)):
            world = np.array(dataset.ImagePositionPatient, float) + row * across * c + column * down * r
            index = (inverse @ [*(LPS_TO_RAS @ world), 1])[:3]
            assert np.abs(volume.affine[:3] @ [*np.rint(index), 1] - LPS_TO_RAS @ world).max() < 1e-3
            i, j, k = np.rint(index).astype(int)
            assert volume.hu[i, j, k] == dataset.pixel_array[r, c]
            checked += 1
    assert checked == 4 * len(some_hu)


@pytest.mark.parametrize(("degrees", "step"), [(7, 2.5), (25, 4.0), (-18.5, 1.0)])
def test_a_tilt_stays_in_the_affine(
    tmp_path: Path, writer: Any, some_hu: np.ndarray, degrees: float, step: float
) -> None:
    folder = writer.volume(tmp_path / "s", some_hu, (0, 0, step), ImageOrientationPatient=list(tilted(degrees)))
    _, affine = read_series(folder)
    assert np.allclose(affine[:3, 2], (0, 0, step), atol=1e-6)
    voxel = abs(np.linalg.det(affine[:3, :3]))
    assert voxel == pytest.approx(1.5 * 0.75 * step * np.cos(np.radians(degrees)), rel=1e-5)


@pytest.mark.parametrize("orientation", [(0.98, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0.98, 0), (0.9, 0, 0, 0, 0.95, 0)])
def test_directions_that_are_no_unit_vectors_change_no_voxel_size(
    tmp_path: Path, writer: Any, some_hu: np.ndarray, orientation: tuple[float, ...]
) -> None:
    folder = writer.volume(tmp_path / "s", some_hu, (0, 0, 2.5), ImageOrientationPatient=list(orientation))
    assert read_volume(folder).spacing == pytest.approx((0.75, 1.5, 2.5), rel=1e-6)


def test_positions_rounded_to_a_tenth_are_even(tmp_path: Path, writer: Any, some_hu: np.ndarray) -> None:
    for k, plane in enumerate(some_hu):
        writer.slice(tmp_path / f"{k}.dcm", plane, (0, 0, round(k * 0.625, 1)))
    assert read_series(tmp_path)[1][2, 2] == pytest.approx(0.625, abs=0.02)


def _uneven(writer: Any, folder: Path, planes: np.ndarray, places: list[float], **tags: Any) -> Path:
    for k, (plane, z) in enumerate(zip(planes, places, strict=True)):
        writer.slice(folder / f"a{k}.dcm", plane, (0, 0, z), **tags)
    return folder


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([0, 2, 4, 6, 10, 12, 14], r"slices are missing: 4 mm between a3\.dcm and a4\.dcm, elsewhere 2 mm"),
        ([0, 1.5, 3, 4.5, 7, 9.5, 12], r"steps from slice to slice are 1\.5 to 2\.5 mm"),
        ([0, 2, 4, 4, 6, 8, 10], r"a2\.dcm and a3\.dcm are two files at one position"),
        ([0, 3, 6, 9, 12.5, 16, 19.5], r"steps from slice to slice are 3 to 3\.5 mm"),
    ],
    ids=["missing", "uneven", "twice", "slightly uneven"],
)
def test_uneven_slices_are_refused_by_file(
    tmp_path: Path, writer: Any, some_hu: np.ndarray, places: list[float], expected: str
) -> None:
    with pytest.raises(UserError, match=expected) as error:
        read_series(_uneven(writer, tmp_path / "s", some_hu, places))
    assert len(str(error.value).splitlines()) == 1


def test_a_slice_beside_the_line_is_named(tmp_path: Path, writer: Any, some_hu: np.ndarray) -> None:
    for k, plane in enumerate(some_hu):
        writer.slice(tmp_path / f"b{k}.dcm", plane, (6.0 if k == 4 else 0.0, 0, 2.0 * k))
    with pytest.raises(UserError, match=r"b4\.dcm lies .* mm beside the line"):
        read_series(tmp_path)


@pytest.mark.parametrize("tag", ["PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"])
def test_what_is_missing_is_named_and_not_assumed(tmp_path: Path, writer: Any, some_hu: np.ndarray, tag: str) -> None:
    writer.volume(tmp_path / "s", some_hu, (0, 0, 2))
    path = tmp_path / "s" / "i003.dcm"
    dataset = dcmread(path)
    delattr(dataset, tag)
    dataset.save_as(path)
    with pytest.raises(UserError, match=rf"{tag} is missing in i003\.dcm"):
        read_series(tmp_path / "s")


def test_slices_of_another_pixel_size_are_refused(tmp_path: Path, writer: Any, some_hu: np.ndarray) -> None:
    writer.volume(tmp_path / "s", some_hu, (0, 0, 2))
    writer.slice(tmp_path / "s" / "odd.dcm", some_hu[0], (-9, 5, 94), PixelSpacing=[1.5, 0.8])
    with pytest.raises(UserError, match=r"PixelSpacing is .*odd\.dcm|odd\.dcm"):
        read_series(tmp_path / "s")


def test_frames_of_an_enhanced_file_are_ordered_and_rescaled_one_by_one(tmp_path: Path, write_enhanced: Any) -> None:
    stored = np.random.default_rng(2).integers(-500, 900, (5, 6, 4)).astype(np.int16)
    rescale = [(1, -24), (2, 0), (1, 100), (0.5, -3), (1, 0)]
    order = [3, 0, 4, 1, 2]
    path = write_enhanced(tmp_path / "e" / "enh.dcm", stored, 1.75, rescale, order)
    hu, affine = read_series(path.parent)
    assert affine[:3, 2] == pytest.approx((0, 0, 1.75))
    for frame, place in enumerate(order):
        slope, intercept = rescale[frame]
        assert np.array_equal(hu[:, :, place].T, np.rint(stored[frame] * slope + intercept))
