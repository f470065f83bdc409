"""Layouts that people have: what is taken, whose it is, which split and mask it has, and what is left out with a line."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medlord_bench.contracts import SPLITS, Case
from medlord_bench.errors import UserError
from medlord_bench.plugins.datasets.folder.dataset import FolderConfig, FolderDataset

WriteCT = Callable[..., Path]
NAMES = {1: "aorta", 2: "heart"}


def folder(root: Path, **config: Any) -> FolderDataset:
    return FolderDataset(FolderConfig(data_root=root, shape=(16, 16, 16), **config))


def cases(dataset: FolderDataset) -> dict[str, Case]:
    return {case.id: case for split in SPLITS for case in dataset.cases(split)}


def splits(dataset: FolderDataset) -> dict[str, list[str]]:
    return {split: sorted(case.id for case in dataset.cases(split)) for split in SPLITS}


def patients(dataset: FolderDataset) -> set[str]:
    return {case.patient for case in cases(dataset).values()}


def left_out(dataset: FolderDataset) -> dict[str, int]:
    return {one.reason: one.count for one in dataset.inventory().left_out}


def series(
    path: Path, patient: str = "", modality: str = "CT", slices: int = 4, seed: int = 0, tilt: float = 0.0
) -> Path:
    """A small series of DICOM files without suffixes. tilt: of the gantry, in degrees."""
    lean = [float(np.cos(np.radians(tilt))), float(np.sin(np.radians(tilt)))]
    uid, rng = generate_uid(), np.random.default_rng(seed)
    for k in range(slices):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        one.Modality, one.SeriesInstanceUID, one.PatientID, one.Rows, one.Columns = modality, uid, patient, 12, 14
        one.SamplesPerPixel, one.PhotometricInterpretation, one.BitsAllocated, one.BitsStored = 1, "MONOCHROME2", 16, 16
        one.HighBit, one.PixelRepresentation, one.PixelSpacing = 15, 1, [2, 2]
        one.ImageOrientationPatient, one.ImagePositionPatient = [1, 0, 0, 0, *lean], [0, 0, 3 * k]
        hu = np.full((12, 14), -1000, np.int16)
        hu[3:9, 3:9] = rng.integers(-80, 100, (6, 6))
        one.PixelData = hu.astype("<i2").tobytes()
        path.mkdir(parents=True, exist_ok=True)
        one.save_as(path / f"I{k:03d}", enforce_file_format=True)
    return path


# ------------------------------------------------------------------------------------------------------------- splits
def test_folders_named_as_splits_are_the_splits(tmp_path: Path, write_ct: WriteCT) -> None:
    for number, (name, count) in enumerate({"training": 3, "validation": 1, "testing": 2}.items()):
        for i in range(count):
            write_ct(tmp_path / name / f"{name[:2]}{i}.nii.gz", 10 * number + i)
    dataset = folder(tmp_path)
    assert {split: len(ids) for split, ids in splits(dataset).items()} == {"train": 3, "val": 1, "test": 2}
    assert splits(dataset)["test"] == ["testing__te0", "testing__te1"]
    assert len(patients(dataset)) == 6
    assert "training (train)" in dataset.protocol.split


def test_splits_hold_layouts_of_their_own(tmp_path: Path, write_ct: WriteCT) -> None:
    for i in range(2):
        write_ct(tmp_path / "train" / "images" / f"a{i}.nii.gz", i, mask=tmp_path / "train" / "labels" / f"a{i}.nii.gz")
    write_ct(tmp_path / "test" / "p9" / "ct.nii.gz", 9, mask=tmp_path / "test" / "p9" / "mask.nii.gz")
    dataset = folder(tmp_path, label_names=NAMES)
    assert splits(dataset) == {"train": ["train__a0", "train__a1"], "val": [], "test": ["test__p9"]}
    assert dataset.protocol.masks == "dataset"


def test_one_patient_below_two_splits_is_refused(tmp_path: Path, write_ct: WriteCT) -> None:
    for split in ("train", "test"):
        write_ct(tmp_path / split / "p1" / "scan.nii.gz", len(split))
    with pytest.raises(UserError, match="patient 'p1' is in 'train' and in 'test'"):
        folder(tmp_path).cases("train")


def test_one_name_in_two_splits_is_two_files_and_a_warning(tmp_path: Path, write_ct: WriteCT) -> None:
    for split in ("train", "test"):
        write_ct(tmp_path / split / "001.nii.gz", len(split))
    assert any("001 is a name in test and in train" in text for text in folder(tmp_path).inventory().warnings)


def test_a_folder_beside_the_splits_is_not_guessed(tmp_path: Path, write_ct: WriteCT) -> None:
    for name in ("train", "test", "more"):
        write_ct(tmp_path / name / "a.nii.gz", len(name))
    with pytest.raises(UserError, match=r"train.*named as splits, but more beside them"):
        folder(tmp_path).cases("train")
    assert folder(tmp_path, exclude="more/*").protocol.counts == {"train": 1, "val": 0, "test": 1}


def test_a_single_folder_named_as_a_split_is_not_guessed(tmp_path: Path, write_ct: WriteCT) -> None:
    for i in range(3):
        write_ct(tmp_path / "train" / f"{i}.nii.gz", i)
    with pytest.raises(UserError, match=r"named as one split.*--data-root .*train"):
        folder(tmp_path).cases("train")


def test_images_divided_into_splits(tmp_path: Path, write_ct: WriteCT) -> None:
    for split, count in {"train": 2, "val": 1, "test": 1}.items():
        for i in range(count):
            name = f"{split}/{split[0]}{i}.nii.gz"
            write_ct(tmp_path / "images" / name, i + len(split) * 3, mask=tmp_path / "labels" / name)
    dataset = folder(tmp_path, label_names=NAMES)
    assert dataset.protocol.counts == {"train": 2, "val": 1, "test": 1}
    assert len(patients(dataset)) == 4
    assert dataset.protocol.masks == "dataset"


def test_patients_whose_names_hold_a_split_word_stay_patients(tmp_path: Path, write_ct: WriteCT) -> None:
    for name in ("train_001", "train_002", "test_001", "test_002"):
        write_ct(tmp_path / name / "ct.nii.gz", len(name) + int(name[-1]))
    assert patients(folder(tmp_path)) == {"train_001", "train_002", "test_001", "test_002"}


# --------------------------------------------------------------------------------------------------- image and mask
def nnunet(root: Path, write_ct: WriteCT, channels: int = 1, tests: int = 0) -> Path:
    for i in range(4):
        for c in range(channels):
            write_ct(root / "imagesTr" / f"C_{i:02d}_{c:04d}.nii.gz", i, mask=root / "labelsTr" / f"C_{i:02d}.nii.gz")
    for i in range(tests):
        write_ct(root / "imagesTs" / f"C_{50 + i}_0000.nii.gz", 50 + i)
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "aorta": 1, "heart": 2}}))
    return root


def test_nnunet_pairs_images_and_labels_and_names_values(tmp_path: Path, write_ct: WriteCT) -> None:
    dataset = folder(nnunet(tmp_path, write_ct, channels=2, tests=2))
    assert sorted(cases(dataset)) == [f"C_{i:02d}" for i in range(4)]
    assert dataset.protocol.rvr_regions == ("aorta", "heart")
    assert left_out(dataset)["images of further channels"] == 4
    assert left_out(dataset)["test images without masks (taken with dataset.masks=none)"] == 2
    _, labels = dataset.load(dataset.cases("test")[0])
    assert labels is not None
    assert labels.region("aorta").sum() == 64


def test_nnunet_with_masks_of_its_test_images_takes_them(tmp_path: Path, write_ct: WriteCT) -> None:
    root = nnunet(tmp_path, write_ct)
    for i in (50, 51):
        write_ct(root / "imagesTs" / f"C_{i}_0000.nii.gz", i, mask=root / "labelsTs" / f"C_{i}.nii.gz")
    dataset = folder(root)
    assert splits(dataset)["test"] == ["C_50", "C_51"]
    assert all(case.mask is not None for case in cases(dataset).values())


def test_nnunet_without_masks_has_its_test_images(tmp_path: Path, write_ct: WriteCT) -> None:
    dataset = folder(nnunet(tmp_path, write_ct, tests=2), masks="none")
    assert splits(dataset)["test"] == ["C_50", "C_51"]
    assert {split: len(ids) for split, ids in splits(dataset).items()} == {"train": 3, "val": 1, "test": 2}


def test_msd_has_no_channel_number_and_values_before_names(tmp_path: Path, write_ct: WriteCT) -> None:
    for i in range(3):
        name = f"lung_{i:03d}.nii.gz"
        write_ct(tmp_path / "imagesTr" / name, i, mask=tmp_path / "labelsTr" / name)
        (tmp_path / "imagesTr" / f"._{name}").write_bytes(b"\0\5\x16\7")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "aorta", "2": "heart"}}))
    dataset = folder(tmp_path)
    assert sorted(cases(dataset)) == ["lung_000", "lung_001", "lung_002"]
    assert dataset.files.names == NAMES
    assert left_out(dataset)["hidden or system files"] == 3


def test_a_data_set_one_folder_deeper_is_said(tmp_path: Path, write_ct: WriteCT) -> None:
    nnunet(tmp_path / "Dataset007_X", write_ct)
    with pytest.raises(UserError, match=r"--data-root .*Dataset007_X"):
        folder(tmp_path).cases("train")


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("img/img{i:04d}", "label/label{i:04d}"),
        ("CT/case{i}", "segmentations/case{i}"),
        ("volumes/{i}_ct", "masks/{i}_mask"),
        ("case_{i:05d}/imaging", "case_{i:05d}/segmentation"),
        ("volume-{i}", "segmentation-{i}"),
        ("Batch {i}/volume-{i}", "Batch {i}/segmentation-{i}"),
        ("volumes_a/volume-{i}", "segmentations/segmentation-{i}"),
        ("ct_train/ct_train_100{i}_image", "ct_train/ct_train_100{i}_label"),
        ("{i}", "labels/{i}"),
        ("p{i}/image", "p{i}/label"),
        ("p{i}/ct", "labels/p{i}"),
        ("p{i}/scan", "masks/p{i}_mask"),
        ("p{i}/scan", "p{i}/seg/mask"),
        ("p{i}/ct/a", "p{i}/mask"),
        ("sub-0{i}/ct/sub-0{i}_ct", "derivatives/labels/sub-0{i}/ct/sub-0{i}_dseg"),
        ("sub-{i}/ses-a/ct/sub-{i}_ses-a_ct", "derivatives/sub-{i}_ses-a_mask"),
    ],
)
def test_image_and_mask_find_each_other(tmp_path: Path, write_ct: WriteCT, image: str, mask: str) -> None:
    """BTCV, KiTS, LiTS as its archives, MM-WHS, BIDS, and what people make of them."""
    for i in range(1, 5):
        write_ct(tmp_path / f"{image.format(i=i)}.nii.gz", i, mask=tmp_path / f"{mask.format(i=i)}.nii.gz")
    dataset = folder(tmp_path, label_names=NAMES)
    assert dataset.protocol.masks == "dataset"
    found = cases(dataset)
    assert len(found) == len(patients(dataset)) == 4
    for case in found.values():
        assert case.image is not None
        assert case.mask is not None
        numbers = [
            set(filter(str.isdigit, path.relative_to(tmp_path).as_posix())) - {"0"} for path in (case.image, case.mask)
        ]
        assert numbers[0] == numbers[1]
    assert not any("mask" in reason for reason in left_out(dataset))


@pytest.mark.parametrize("lost", [False, True])
def test_lits_is_paired_by_number_over_its_batches(tmp_path: Path, write_ct: WriteCT, lost: bool) -> None:
    """A volume is in one batch and its segmentation in another; the number is the patient."""
    for i in range(5):
        mask = tmp_path / f"Batch {2 - i % 2}" / f"segmentation-{i}.nii.gz"
        write_ct(tmp_path / f"Batch {1 + i % 2}" / f"volume-{i}.nii.gz", i, mask=mask)
    if lost:
        (tmp_path / "Batch 1" / "volume-4.nii.gz").unlink()
    dataset = folder(tmp_path, label_names=NAMES)
    assert dataset.inventory().layout == "LiTS (volume-N, segmentation-N)"
    assert patients(dataset) == {f"volume-{i}" for i in range(4 if lost else 5)}
    assert all(case.mask is not None for case in cases(dataset).values())
    assert left_out(dataset).get("masks without an image", 0) == int(lost)


def test_bids_has_its_subjects_and_masks_below_derivatives(tmp_path: Path, write_ct: WriteCT) -> None:
    for i in range(4):
        name = f"sub-{i:02d}"
        mask = tmp_path / "derivatives" / "seg" / name / "ct" / f"{name}_ct_mask.nii.gz"
        write_ct(tmp_path / name / "ct" / f"{name}_ct.nii.gz", i, mask=mask)
    dataset = folder(tmp_path, label_names=NAMES)
    assert dataset.inventory().layout == "BIDS (sub-NAME)"
    assert patients(dataset) == {f"sub-{i:02d}" for i in range(4)}
    assert all(case.mask is not None for case in cases(dataset).values())


def test_label_names_without_a_mask_are_refused(tmp_path: Path, write_ct: WriteCT) -> None:
    for i in range(4):
        write_ct(tmp_path / f"p{i}" / "ct.nii.gz", i)
    with pytest.raises(UserError, match="label_names is given and no image has a mask"):
        _ = folder(tmp_path, label_names=NAMES).protocol
    assert folder(tmp_path, label_names=NAMES, masks="none").protocol.masks == "none"


def test_masks_that_belong_to_no_image_are_listed(tmp_path: Path, write_ct: WriteCT) -> None:
    for i in range(4):
        write_ct(tmp_path / f"p{i}" / "a.nii.gz", i)
        write_ct(tmp_path / f"p{i}" / "b.nii.gz", 10 + i, mask=tmp_path / f"p{i}" / "mask.nii.gz")
    assert left_out(folder(tmp_path))["masks that are not paired with one image"] == 4


# -------------------------------------------------------------------------------------------------------------- DICOM
def test_what_is_no_volume_of_ct_is_left_out_with_a_glob(tmp_path: Path) -> None:
    for i in range(4):
        series(tmp_path / f"p{i}" / "study" / "ct", seed=i)
        series(tmp_path / f"p{i}" / "study" / "xray", modality="DX", slices=1)
    series(tmp_path / "p0" / "study" / "one", slices=1)
    dataset = folder(tmp_path)
    assert len(cases(dataset)) == 4
    assert left_out(dataset) == {"series that are not CT: DX": 4, "series or images of one slice": 1}
    assert next(one.glob for one in dataset.inventory().left_out if "DX" in one.reason) == "*/study/xray"


@pytest.mark.parametrize("first", [".DS_Store", "._I000", "0_LICENSE", "Thumbs.db"])
def test_no_patient_vanishes_for_a_file_beside_the_slices(tmp_path: Path, first: str) -> None:
    for i in range(3):
        series(tmp_path / f"p{i}", seed=i)
        (tmp_path / f"p{i}" / first).write_bytes(b"\0\0\0\1Bud1")
    assert patients(folder(tmp_path)) == {"p0", "p1", "p2"}


def test_a_mask_beside_the_folder_of_slices_is_its_mask(tmp_path: Path, write_ct: WriteCT) -> None:
    for i in range(3):
        series(tmp_path / f"p{i}" / "dicom", seed=i)
        write_ct(tmp_path / "x.nii.gz", 0, mask=tmp_path / f"p{i}" / "mask.nii.gz")
    (tmp_path / "x.nii.gz").unlink()
    assert all(case.mask is not None for case in cases(folder(tmp_path, label_names=NAMES)).values())


def test_several_series_of_one_folder_are_images_of_one_patient(tmp_path: Path) -> None:
    for i in range(3):
        series(tmp_path / f"p{i}", seed=i)
    for k, path in enumerate(series(tmp_path / "more", seed=7).iterdir()):
        path.rename(tmp_path / "p0" / f"second{k}")
    (tmp_path / "more").rmdir()
    dataset = folder(tmp_path)
    assert len(cases(dataset)) == 4
    assert patients(dataset) == {"p0", "p1", "p2"}
    values = [dataset.load(case)[0].hu for case in cases(dataset).values() if case.patient == "p0"]
    assert not np.array_equal(*values)
    assert len({case.sha256 for case in cases(dataset).values()}) == 4


@pytest.mark.parametrize("root", ["", "COLLECTION"])
def test_an_export_names_its_patients_by_their_ids(tmp_path: Path, root: str) -> None:
    """A PACS export with a DICOMDIR, and a tree below one collection."""
    for i in range(4):
        series(tmp_path / root / "DICOM" / f"S{i:04d}", patient=f"id{i % 3}", seed=i)
    if not root:
        (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert patients(folder(tmp_path)) == {"id0", "id1", "id2"}


def test_one_folder_of_unknown_patients_is_not_guessed(tmp_path: Path, write_ct: WriteCT) -> None:
    for i in range(4):
        write_ct(tmp_path / "all" / f"who{i}" / "scan.nii.gz", i)
    with pytest.raises(UserError, match=r"all 4 images lie below all.*--data-root .*all"):
        folder(tmp_path).cases("train")
    assert len(patients(folder(tmp_path / "all"))) == 4


def test_an_export_of_one_patient_below_one_folder_is_not_guessed(tmp_path: Path) -> None:
    """One PatientID names no patients: it may be one patient, or have been replaced in all."""
    for i in range(4):
        series(tmp_path / "all" / f"S{i}", patient="ANON", seed=i)
    with pytest.raises(UserError, match="all 4 images lie below all"):
        folder(tmp_path).cases("train")


@pytest.mark.parametrize(("below", "tree"), [("study/series", True), ("series", False)])
def test_three_levels_of_dicom_are_a_tcia_tree(tmp_path: Path, below: str, tree: bool) -> None:
    for i in range(4):
        series(tmp_path / f"p{i}" / below, patient=f"id{i}", seed=i)
    found = folder(tmp_path).inventory()
    assert found.layout == "one folder per patient" + " (TCIA or IDC: patient, study, series)" * tree
    assert patients(folder(tmp_path)) == {f"p{i}" for i in range(4)}


def test_a_patient_id_in_two_folders_is_warned_about(tmp_path: Path) -> None:
    for i, name in enumerate(("x", "y", "x", "z")):
        series(tmp_path / f"p{i}", patient=name, seed=i)
    assert any("PatientID x" in text and "p0, p2" in text for text in folder(tmp_path).inventory().warnings)


def test_slices_of_one_series_in_two_folders_are_refused(tmp_path: Path) -> None:
    for i in range(3):
        series(tmp_path / f"p{i}", slices=6, seed=i)
    (tmp_path / "p0" / "rest").mkdir()
    for k in (3, 4, 5):
        (tmp_path / "p0" / f"I00{k}").rename(tmp_path / "p0" / "rest" / f"I00{k}")
    with pytest.raises(UserError, match=r"slices of the series that .*p0.* has too"):
        folder(tmp_path).cases("train")


def test_excluded_slices_are_not_read(tmp_path: Path) -> None:
    for i in range(3):
        series(tmp_path / f"p{i}", seed=i)
    before = cases(folder(tmp_path))
    dataset = folder(tmp_path, exclude=["p0/I003"])
    assert dataset.load(cases(dataset)["p0"])[0].shape[2] == 3
    assert cases(dataset)["p0"].sha256 != before["p0"].sha256
    assert cases(dataset)["p1"].sha256 == before["p1"].sha256


@pytest.mark.parametrize("tilt", [7.0, -25.0])
def test_a_tilted_series_is_loaded_upright(tmp_path: Path, tilt: float) -> None:
    for i in range(3):
        series(tmp_path / f"p{i}", seed=i, slices=8, tilt=tilt)
    dataset = folder(tmp_path)
    volume, _ = dataset.load(cases(dataset)["p0"])
    columns = volume.affine[:3, :3]
    assert np.allclose(columns.T @ columns, np.diag(np.diag(columns.T @ columns)), atol=1e-5)
    assert volume.spacing == pytest.approx((2, 2, 3 * np.cos(np.radians(tilt))), rel=1e-5)
    assert volume.shape[1] == 12 + int(np.ceil(7 * 3 * abs(np.sin(np.radians(tilt))) / 2 - 1e-6))


def test_some_wrapped_voxels_are_a_warning(
    tmp_path: Path, write_ct: WriteCT, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        write_ct(tmp_path / f"p{i}.nii.gz", i)
    image = nib.load(tmp_path / "p0.nii.gz")
    values = np.asarray(image.dataobj).copy()
    values[0, :10, 0] = 32000
    nib.save(nib.Nifti1Image(values, image.affine), tmp_path / "p0.nii.gz")
    monkeypatch.setattr(logging.getLogger("medlord_bench"), "propagate", True)
    dataset = folder(tmp_path)
    dataset.load(cases(dataset)["p0"])
    assert "p0.nii.gz: 0.37 % of the voxels are above 30000 HU" in caplog.text


def _beside(root: Path, write_ct: WriteCT) -> None:
    for i in range(3):
        write_ct(root / f"Test/a{i}.nii.gz", i)
        write_ct(root / f"p{i}/ct.nii.gz", 10 + i)


def _nested(root: Path, write_ct: WriteCT) -> None:
    for i in range(3):
        series(root / f"Mine/train/p{i}", patient=f"P{i}", seed=i)
        series(root / f"Mine/test/q{i}", patient=f"Q{i}", seed=10 + i)


def _by_site(root: Path, write_ct: WriteCT) -> None:
    for site in range(3):
        write_ct(root / f"site{site}/train/a.nii.gz", site)
        write_ct(root / f"site{site}/test/b.nii.gz", 10 + site)


def _loose_image(root: Path, write_ct: WriteCT) -> None:
    for i in range(3):
        write_ct(root / f"images/train/a{i}.nii.gz", i)
        write_ct(root / f"images/test/b{i}.nii.gz", 10 + i)
    write_ct(root / "images/loose.nii.gz", 30)


def _one_folder(root: Path, write_ct: WriteCT) -> None:
    for i in range(3):
        write_ct(root / f"imagesTs/a{i}.nii.gz", i)


@pytest.mark.parametrize(
    ("write", "named"),
    [
        (_beside, "Test: named as splits, but p0 beside them is not"),
        (_nested, "Mine/test is named as a split"),
        (_by_site, "site0/test is named as a split"),
        (_loose_image, "images/test is named as a split"),
        (_one_folder, "all 3 images lie below imagesTs"),
    ],
)
def test_folders_of_splits_never_count_as_patients(
    write: Callable[[Path, WriteCT], None], named: str, tmp_path: Path, write_ct: WriteCT
) -> None:
    write(tmp_path / "data", write_ct)
    with pytest.raises(UserError, match=named) as error:
        folder(tmp_path / "data").cases("train")
    assert "\n" not in str(error.value)


def test_initials_of_a_patient_are_no_split(tmp_path: Path, write_ct: WriteCT) -> None:
    for i, name in enumerate(("AB", "TR", "XY")):
        write_ct(tmp_path / name / "ct.nii.gz", i)
    assert patients(folder(tmp_path)) == {"AB", "TR", "XY"}


def test_the_same_patient_folder_in_two_splits_is_one_patient(tmp_path: Path, write_ct: WriteCT) -> None:
    for i, place in enumerate(("train/p1", "train/p2", "test/p1")):
        write_ct(tmp_path / place / "ct.nii.gz", i)
    with pytest.raises(UserError, match="patient 'p1' is in 'train' and in 'test'"):
        folder(tmp_path).cases("train")


def test_a_patient_id_in_two_splits_is_a_warning(tmp_path: Path) -> None:
    for i, (place, patient) in enumerate((("train/a", "A"), ("train/b", "B"), ("test/c", "A"), ("test/d", "D"))):
        series(tmp_path / place, patient=patient, seed=i)
    (warning,) = folder(tmp_path).inventory().warnings
    assert "PatientID A is in the folders of several splits (test, train)" in warning
