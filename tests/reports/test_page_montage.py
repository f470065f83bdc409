"""The montage shows volumes the way a radiologist reads them; a mirrored plane fails here."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from medlord_bench.drawing.slices import mid_planes
from medlord_bench.errors import UserError
from medlord_bench.reports.page.montage import draw_montage
from medlord_bench.results import pictures
from medlord_bench.volumes.arrays import save_state
from medlord_bench.volumes.io import read_labels, read_volume
from medlord_bench.volumes.planes import Planes, planes_of, write_planes

WINDOW = (-1000.0, 1000.0)


def corner(image: np.ndarray) -> tuple[str, str]:
    """Which corner the brightest spot of an image is in."""
    row, column = np.unravel_index(int(np.argmax(image)), image.shape)
    return ("top" if row < image.shape[0] / 2 else "bottom", "left" if column < image.shape[1] / 2 else "right")


def marked(shape: tuple[int, int, int] = (8, 10, 12)) -> np.ndarray:
    """Air with bone at the patient's right, anterior, superior end of each mid plane."""
    hu = np.full(shape, -1000, np.int16)
    x, y, z = (size // 2 for size in shape)
    hu[-1, -1, z] = hu[-1, y, -1] = hu[x, -1, -1] = 1000
    return hu


def test_right_anterior_superior_lands_where_a_radiologist_expects_it() -> None:
    axial, coronal, sagittal = mid_planes(planes_of(marked()), (1, 1, 1), WINDOW)
    assert corner(axial.grey) == ("top", "left")  # anterior at the top, the patient's right at the left
    assert corner(coronal.grey) == ("top", "left")  # superior at the top, the patient's right at the left
    assert corner(sagittal.grey) == ("top", "left")  # superior at the top, anterior at the left
    assert axial.sides == ("R", "L", "A", "P")
    assert coronal.sides == ("R", "L", "S", "I")
    assert sagittal.sides == ("A", "P", "S", "I")


@pytest.mark.parametrize(
    ("at", "places"),
    [
        ((0, 9, 6), {"axial": ("top", "right")}),
        ((7, 0, 6), {"axial": ("bottom", "left")}),
        ((0, 5, 11), {"coronal": ("top", "right")}),
        ((7, 5, 0), {"coronal": ("bottom", "left")}),
        ((4, 0, 11), {"sagittal": ("top", "right")}),
        ((4, 9, 0), {"sagittal": ("bottom", "left")}),
    ],
)
def test_every_direction_is_told_apart(at: tuple[int, int, int], places: dict[str, tuple[str, str]]) -> None:
    hu = np.full((8, 10, 12), -1000, np.int16)
    hu[at] = 1000
    for plane in mid_planes(planes_of(hu), (1, 1, 1), WINDOW):
        if plane.name in places:
            assert corner(plane.grey) == places[plane.name]


def test_anisotropic_voxels_keep_their_size_in_mm() -> None:
    axial, coronal, sagittal = mid_planes(planes_of(marked((8, 10, 12))), (0.5, 0.6, 3.0), WINDOW)
    assert axial.size == pytest.approx((4, 6))
    assert coronal.size == pytest.approx((4, 36))
    assert sagittal.size == pytest.approx((6, 36))
    assert axial.grey.shape == (10, 8)
    assert coronal.grey.shape == (12, 8)


def test_the_window_maps_to_black_and_white_and_clips_beyond() -> None:
    hu = np.array([-3000, -160, 40, 240, 3000], np.int16)[:, None, None] * np.ones((5, 2, 2), np.int16)
    axial = mid_planes(planes_of(hu), (1, 1, 1), (-160, 240))[0]
    assert axial.grey[0].tolist() == [255, 255, 128, 0, 0]  # 40 HU is the middle: 127.5 rounds to even


def draw(folder: Path, described: dict[str, object]) -> list[Path]:
    """The PNG of every row that has a picture."""
    paths = []
    for number, row in enumerate(draw_montage(montage_of(folder, described)).rows):
        if row.picture is not None:
            paths.append(folder / f"row-{number}.png")
            paths[-1].write_bytes(base64.b64decode(row.picture.source.partition(",")[2]))
    return paths


def montage_of(folder: Path, described: dict[str, object]) -> pictures.Montage:
    (folder / "results").mkdir(exist_ok=True)
    (folder / "results" / "montage.json").write_text(json.dumps(described))
    found = pictures.read_montage(folder)
    assert found is not None
    return found


def test_the_written_png_has_the_marker_in_the_right_corner_at_the_right_proportions(tmp_path: Path) -> None:
    hu = np.full((40, 40, 20), -1000, np.int16)
    hu[30:, 30:, :] = 1000  # right, anterior: through every slice
    write_planes(tmp_path / "a.safetensors", planes_of(hu))
    (path,) = draw(
        tmp_path, {"spacing": [1, 1, 2], "rows": [{"title": "a", "items": [{"id": "a", "path": "a.safetensors"}]}]}
    )
    grey = imread(path)[..., :3].min(axis=2)  # yellow letters have no blue
    rows, columns = np.nonzero(grey > 0.95)
    block = rows < 0.36 * grey.shape[0]  # the axial panel is the upper third
    axial_rows, axial_columns = rows[block & (columns > 30)], columns[block & (columns > 30)]
    assert np.median(axial_columns) < 0.5 * grey.shape[1]
    assert np.median(axial_rows) < 0.2 * grey.shape[0]
    assert grey.shape[0] / grey.shape[1] == pytest.approx(3, rel=0.1)  # three panels of 40 x 40 mm


def test_volumes_that_are_gone_or_failed_leave_words(tmp_path: Path) -> None:
    write_planes(tmp_path / "a.safetensors", planes_of(marked()))
    items = [
        {"id": "a", "path": "a.safetensors"},
        {"id": "b", "path": "gone.safetensors"},
        {"id": "c", "path": None, "failed": "NaN"},
    ]
    rows = [{"title": "t", "items": items}, {"title": "u", "items": items[1:]}]
    montage = draw_montage(montage_of(tmp_path, {"rows": rows}))
    assert montage.rows[0].picture is not None
    assert "b (missing), c (NaN)" in montage.rows[0].picture.alt
    assert montage.rows[1].picture is None
    assert montage.rows[1].note == "no volume to show of 2: missing, NaN"


def test_the_hash_of_a_case_is_not_part_of_its_title(tmp_path: Path) -> None:
    write_planes(tmp_path / "a.safetensors", planes_of(marked()))
    names = ("phantom-0028-412578e9e4", "sample-00001", "scan-412578e9e4-left")
    rows = [{"title": "t", "items": [{"id": name, "path": "a.safetensors"} for name in names]}]
    picture = draw_montage(montage_of(tmp_path, {"rows": rows})).rows[0].picture
    assert picture is not None
    assert "(phantom-0028, sample-00001, scan-412578e9e4-left)" in picture.alt


def test_letters_of_the_sides_cover_no_voxel(tmp_path: Path) -> None:
    write_planes(tmp_path / "white.safetensors", planes_of(np.full((8, 8, 8), 1000, np.int16)))
    (path,) = draw(tmp_path, {"rows": [{"title": "t", "items": [{"id": "x", "path": "white.safetensors"}] * 2}]})
    image = imread(path)[..., :3]
    white = (image > 0.99).all(axis=2)
    yellow = (image[..., 0] > 0.8) & (image[..., 2] < 0.6)
    assert yellow.sum() > 100  # the letters are there
    assert white.sum() >= 6 * 256 * 256  # and all six panels are whole


def test_more_volumes_than_fit_are_counted(tmp_path: Path) -> None:
    write_planes(tmp_path / "a.safetensors", planes_of(marked()))
    rows = [{"title": "t", "items": [{"id": str(i), "path": "a.safetensors"} for i in range(9)]}]
    montage = draw_montage(montage_of(tmp_path, {"rows": rows}))
    assert montage.rows[0].note == "6 of 9 volumes shown"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"window": [100, -100]}, "window"),
        ({"window": "wide"}, "window"),
        ({"spacing": [1, 1]}, "spacing"),
        ({"spacing": [1, 1, 0]}, "spacing"),
    ],
)
def test_a_description_that_makes_no_sense_is_an_error_naming_the_field(
    tmp_path: Path, change: dict[str, object], told: str
) -> None:
    with pytest.raises(UserError, match=f"montage.json: field '{told}"):
        draw(tmp_path, {"rows": []} | change)


def test_damaged_planes_are_an_error_naming_the_file(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    save_state(tmp_path / "other.safetensors", {"axial": np.zeros((4, 4), np.int16)})
    flat = np.zeros((4, 4), np.int16)
    write_planes(tmp_path / "flat.safetensors", Planes(flat, flat[:3], flat))
    for name in ("bad", "other", "flat"):
        with pytest.raises(UserError, match=f"{name}.safetensors"):
            draw(tmp_path, {"rows": [{"title": "t", "items": [{"id": "x", "path": f"{name}.safetensors"}]}]})


def test_real_ct_lies_as_its_expert_contours_say(data_dir: Path) -> None:
    """The left lung is on the image's right, the spinal cord at the bottom, and the lungs are dark in the CT."""
    hu = read_volume(data_dir / "chest_lung1" / "ct.nii.gz").hu
    contours = read_labels(data_dir / "chest_lung1" / "labels.nii.gz", {1: "tumour", 2: "cord", 3: "left", 4: "right"})
    labels, spacing = contours.labels, read_volume(data_dir / "chest_lung1" / "ct.nii.gz").spacing
    assert spacing == pytest.approx((0.977, 0.977, 3), abs=0.001)
    cord, left, right = (
        mid_planes(planes_of((labels == value).astype(np.int16)), spacing, (0, 1)) for value in (2, 3, 4)
    )
    for plane in (0, 1):
        assert columns_of(left[plane].grey) > columns_of(right[plane].grey) + 100
    assert np.nonzero(cord[0].grey)[0].mean() > np.nonzero(left[0].grey)[0].mean()
    assert np.nonzero(cord[2].grey)[1].mean() > np.nonzero((left[2].grey + right[2].grey) > 0)[1].mean()
    axial, lung = mid_planes(planes_of(hu), spacing, WINDOW)[0].grey, left[0].grey > 0
    assert axial[lung].mean() < 60  # below about -530 HU


def columns_of(mask: np.ndarray) -> float:
    return float(np.nonzero(mask)[1].mean())


def test_a_volume_whose_file_states_no_voxel_size_is_drawn_as_its_neighbour(tmp_path: Path) -> None:
    hu = marked((10, 10, 10))
    write_planes(tmp_path / "a.safetensors", planes_of(hu))
    write_planes(tmp_path / "b.safetensors", planes_of(hu, (5.0, 5.0, 5.0)))
    items = [{"id": name, "path": f"{name}.safetensors"} for name in "ba"]
    (path,) = draw(tmp_path, {"rows": [{"title": "t", "items": items}]})
    bone = imread(path)[..., :3].min(axis=2) > 0.9  # letters are yellow or a darker grey
    left, right = np.split(bone[:, : bone.shape[1] // 2 * 2], 2, axis=1)
    assert left.sum() > 100
    assert right.sum() == pytest.approx(left.sum(), rel=0.1)
