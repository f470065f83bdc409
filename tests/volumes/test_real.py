"""Real CT of every origin comes out as HU in R, A, S; the odd files are caught. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medlord_bench.contracts import Grid
from medlord_bench.errors import UserError
from medlord_bench.volumes.checks import check_ct, check_same_grid
from medlord_bench.volumes.grid import fit, fit_labels
from medlord_bench.volumes.io import read_labels, read_volume

IMAGES = (
    "thorax_cta/ct.nii.gz",
    "abdomen/ct.nii.gz",
    "chest_lung1/ct.nii.gz",
    "small/lung_small.mha",
    "odd/dicom_jpeg2000",
)


@pytest.mark.parametrize("name", IMAGES)
def test_a_patient_lies_on_the_back_head_up(data_dir: Path, name: str) -> None:
    """Bone is dense behind the body's middle (the spine), and all axes point to R, A, S."""
    volume = read_volume(data_dir / name)
    check_ct(volume, name)
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
    assert volume.hu.dtype == np.int16
    assert -1300 < np.percentile(volume.hu, 0.1) < -900  # air


def test_the_spine_is_behind_and_the_lungs_above_the_liver(data_dir: Path) -> None:
    volume = read_volume(data_dir / "chest_lung1/ct.nii.gz")
    body = volume.hu > -300
    middle = volume.shape[0] // 2
    strip = slice(middle - volume.shape[0] // 12, middle + volume.shape[0] // 12)
    bone = (volume.hu[strip] > 350) & (volume.hu[strip] < 1500)
    assert np.argwhere(bone)[:, 1].mean() < np.argwhere(body)[:, 1].mean()
    lung = (volume.hu > -950) & (volume.hu < -750)
    centre = np.argwhere(lung)[:, 2].mean()
    soft = np.argwhere((volume.hu > 30) & (volume.hu < 150))[:, 2].mean()
    assert centre > soft


def test_the_expert_s_left_lung_lies_at_the_lower_r_index(data_dir: Path) -> None:
    names = {1: "tumour", 2: "spinal_cord", 3: "lung_left", 4: "lung_right"}
    labels = read_labels(data_dir / "chest_lung1/labels.nii.gz", names)
    volume = read_volume(data_dir / "chest_lung1/ct.nii.gz")
    check_same_grid(volume, labels, "ct", "labels")
    left, right = (labels.region(side) for side in ("lung_left", "lung_right"))
    assert (int(left.sum()), int(right.sum())) == (795_750, 1_036_805)
    assert np.argwhere(left)[:, 0].mean() < np.argwhere(right)[:, 0].mean()
    assert np.median(volume.hu[left | right]) < -700
    cord = np.argwhere(labels.region("spinal_cord"))[:, 1].mean()
    assert cord < np.argwhere(left)[:, 1].mean()
    placed = fit_labels(labels, Grid(shape=(128, 128, 64)), "resize")
    share = placed.region("lung_left").mean() / left.mean()
    assert share == pytest.approx(1, abs=0.02)  # RVR hardly depends on the grid


def test_the_heart_lies_left_of_the_middle_and_in_front(data_dir: Path) -> None:
    volume = read_volume(data_dir / "thorax_cta/ct.nii.gz")
    heart = read_labels(data_dir / "thorax_cta/heart.nii.gz", {1: "heart"})
    check_same_grid(volume, heart, "ct", "heart")
    assert int(heart.region("heart").sum()) == 198_176
    lungs = np.argwhere((volume.hu > -950) & (volume.hu < -750)).mean(axis=0)
    centre = np.argwhere(heart.region("heart")).mean(axis=0)
    assert centre[0] < lungs[0] - 5
    assert centre[1] > lungs[1] + 5


def test_the_aorta_crop_lies_in_its_thorax(data_dir: Path) -> None:
    whole, crop = (read_volume(data_dir / "thorax_cta" / name) for name in ("ct.nii.gz", "aorta_crop/ct.nii.gz"))
    start = np.rint(np.linalg.inv(whole.affine) @ crop.affine @ [0, 0, 0, 1])[:3].astype(int)
    box = tuple(slice(s, s + n) for s, n in zip(start, crop.shape, strict=True))
    assert np.abs(whole.hu[box].astype(int) - crop.hu).max() <= 2  # the crop was rounded anew


def test_dicom_in_jpeg2000_equals_what_nibabel_and_itk_say_of_its_nifti(data_dir: Path, tmp_path: Path) -> None:
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(data_dir / "odd/dicom_jpeg2000")))
    sitk.WriteImage(reader.Execute(), str(tmp_path / "same.nii.gz"))
    series, nifti = read_volume(data_dir / "odd/dicom_jpeg2000"), read_volume(tmp_path / "same.nii.gz")
    assert np.array_equal(series.hu, nifti.hu)
    assert np.allclose(series.affine, nifti.affine, atol=1e-3)
    assert series.shape == (512, 512, 20)


def test_an_mr_volume_is_not_ct(data_dir: Path) -> None:
    path = data_dir / "odd/mr_not_ct.nii.gz"
    with pytest.raises(UserError, match=r"mr_not_ct\.nii\.gz: not a CT.*-47\.\.833"):
        check_ct(read_volume(path), path)


def test_a_wrong_affine_shows_against_its_pair(data_dir: Path) -> None:
    """Alone it reads; as the image of a mask whose header is right, the 246 mm are named."""
    volume = read_volume(data_dir / "odd/ct_affine_wrong_by_246mm.nii.gz")
    check_ct(volume, "ct")
    moved = volume.affine.copy()
    moved[2, 3] += 246
    from medlord_bench.contracts import LabelMap

    mask = LabelMap(np.zeros(volume.shape, np.uint8), moved, {})
    with pytest.raises(UserError, match="246 mm"):
        check_same_grid(volume, mask, "ct", "mask")


def test_a_real_ct_fits_the_paper_s_grid(data_dir: Path) -> None:
    volume = read_volume(data_dir / "thorax_cta/ct.nii.gz")
    fitted = fit(volume, Grid(shape=(256, 256, 128)), "crop-pad").volume
    assert fitted.shape == (256, 256, 128)
    assert fitted.hu.min() == -1000
    assert np.allclose(fitted.spacing, 1.5)
