"""Folders of CT: what is found, who is whose patient, how they are divided, and what bad input says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medlord_bench.contracts import SPLITS, Dataset, Volume
from medlord_bench.errors import MissingError, UserError
from medlord_bench.plugins.datasets.folder import patches
from medlord_bench.plugins.datasets.folder.dataset import FolderConfig, FolderDataset, PatchConfig
from medlord_bench.util.hashing import file_sha256

WriteCT = Callable[..., Path]
NAMES = {1: "aorta", 2: "heart"}


def folder(root: Path, **config: Any) -> FolderDataset:
    config.setdefault("shape", (16, 16, 16))
    return FolderDataset(FolderConfig(data_root=root, **config))


def ids(dataset: FolderDataset) -> list[str]:
    return sorted(case.id for split in SPLITS for case in dataset.cases(split))


def plain(root: Path, write_ct: WriteCT, n: int = 10) -> Path:
    for i in range(n):
        write_ct(root / f"p{i:02d}.nii.gz", i)
    return root


def test_plain_files_are_patients(tmp_path: Path, write_ct: WriteCT) -> None:
    dataset = folder(plain(tmp_path / "d", write_ct))
    assert isinstance(dataset, Dataset)
    assert ids(dataset) == [f"p{i:02d}" for i in range(10)]
    assert dataset.protocol.counts == {"train": 7, "val": 1, "test": 2}
    volume, labels = dataset.load(dataset.cases("train")[0])
    assert volume.spacing == pytest.approx((2, 2, 3))
    assert labels is None
    assert dataset.protocol.masks == "none"


def test_images_and_masks_are_paired_by_name(tmp_path: Path, write_ct: WriteCT) -> None:
    root = tmp_path / "d"
    for i in range(4):
        write_ct(root / "images" / f"c{i}.nii.gz", i, mask=root / "masks" / f"c{i}.nii.gz")
    dataset = folder(root, label_names=NAMES)
    assert dataset.protocol.masks == "dataset"
    assert dataset.protocol.rvr_regions == ("aorta", "heart")
    _, labels = dataset.load(dataset.cases("test")[0])
    assert labels is not None
    assert labels.region("aorta").sum() == 64
    assert folder(root, masks="none").load(dataset.cases("test")[0])[1] is None


def test_names_may_lie_beside_the_images(tmp_path: Path, write_ct: WriteCT) -> None:
    root = tmp_path / "d"
    for i in range(4):
        write_ct(root / "images" / f"c{i}.nii.gz", i, mask=root / "labels" / f"c{i}.nii.gz")
    (root / "labels.json").write_text(json.dumps({"0": "background", "1": "aorta", "2": "heart"}))
    assert folder(root).protocol.rvr_regions == ("aorta", "heart")
    (root / "labels.json").write_text("[]")
    with pytest.raises(UserError, match=r"labels\.json: not a table"):
        _ = folder(root).protocol


def test_subject_folders_hold_one_ct_and_its_structures(tmp_path: Path, write_ct: WriteCT) -> None:
    """TotalSegmentator's layout: s0001/ct.nii.gz with segmentations/<region>.nii.gz."""
    root = tmp_path / "d"
    for i in range(3):
        subject = root / f"s{i:04d}"
        write_ct(subject / "ct.nii.gz", i, mask=tmp_path / "mask.nii.gz")
        whole = nib.load(tmp_path / "mask.nii.gz")
        (subject / "segmentations").mkdir()
        for value, name in NAMES.items():
            part = (np.asarray(whole.dataobj) == value).astype(np.uint8)
            nib.save(nib.Nifti1Image(part, whole.affine), subject / "segmentations" / f"{name}.nii.gz")
    dataset = folder(root)
    assert ids(dataset) == ["s0000", "s0001", "s0002"]
    _, labels = dataset.load(dataset.cases("train")[0])
    assert labels is not None
    assert labels.names == NAMES
    assert (labels.region("aorta").sum(), labels.region("heart").sum()) == (64, 48)


def test_images_named_alike_in_two_folders_do_not_collide(tmp_path: Path, write_ct: WriteCT) -> None:
    root = tmp_path / "d"
    for name in ("a", "b", "a/crop", "c"):
        write_ct(root / name / "ct.nii.gz", len(name))
    dataset = folder(root)
    assert ids(dataset) == ["a", "a__crop", "b", "c"]
    patients = {case.id: case.patient for split in SPLITS for case in dataset.cases(split)}
    assert patients == {"a": "a", "a__crop": "a", "b": "b", "c": "c"}


def test_one_id_for_two_images_is_an_error_that_names_both(tmp_path: Path, write_ct: WriteCT) -> None:
    root = tmp_path / "d"
    for name in ("x.nii.gz", "x.nii", "y.nii", "z.nii"):
        write_ct(root / name)
    with pytest.raises(UserError, match=r"x\.nii.*x\.nii.*dataset\.exclude"):
        folder(root).cases("train")
    assert ids(folder(root, exclude="x.nii")) == ["x", "y", "z"]


def test_pairs_by_name_as_in_imagecas_and_mmwhs(tmp_path: Path, write_ct: WriteCT) -> None:
    root = tmp_path / "d"
    write_ct(root / "1.img.nii.gz", 1, mask=root / "1.label.nii.gz")
    write_ct(root / "2.img.nii.gz", 2, mask=root / "2.label.nii.gz")
    write_ct(root / "ct_train_1001_image.nii.gz", 3, mask=root / "ct_train_1001_label.nii.gz")
    dataset = folder(root, label_names=NAMES)
    assert ids(dataset) == ["1", "2", "ct_train_1001"]
    assert all(case.mask is not None for split in SPLITS for case in dataset.cases(split))


def test_a_dicom_folder_is_one_image(data_dir: Path, tmp_path: Path, write_ct: WriteCT) -> None:
    root = plain(tmp_path / "d", write_ct, 3)
    (root / "series").symlink_to(data_dir / "odd" / "dicom_jpeg2000")
    dataset = folder(root)
    assert "series" in ids(dataset)
    case = next(c for split in SPLITS for c in dataset.cases(split) if c.id == "series")
    assert dataset.load(case)[0].shape == (512, 512, 20)


def test_masks_may_lie_apart(tmp_path: Path, write_ct: WriteCT) -> None:
    root = tmp_path / "d"
    for i in range(3):
        write_ct(root / f"{i}.img.nii.gz", i, mask=tmp_path / "apart" / f"{i}.nii.gz")
    dataset = folder(root, label_names=NAMES, mask_folder=tmp_path / "apart")
    assert dataset.load(dataset.cases("train")[0])[1] is not None
    (tmp_path / "apart" / "1.nii.gz").unlink()
    with pytest.raises(UserError, match=r"no mask for .*1\.img\.nii\.gz"):
        folder(root, label_names=NAMES, mask_folder=tmp_path / "apart").cases("train")


# ------------------------------------------------------------------------------------------------------ manifest
def manifest(root: Path, write_ct: WriteCT, rows: list[str], header: str = "id,patient,image,split") -> FolderDataset:
    for i in range(4):
        write_ct(root / f"{i}.nii.gz", i)
    (root / "cohort.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder(root, manifest="cohort.csv")


def test_a_manifest_says_who_is_whose_and_where(tmp_path: Path, write_ct: WriteCT) -> None:
    rows = ["a,P1,0.nii.gz,train", "b,P1,1.nii.gz,train", "c,P2,2.nii.gz,test", "d,P3,3.nii.gz,val"]
    dataset = manifest(tmp_path / "d", write_ct, rows)
    assert [[case.id for case in dataset.cases(split)] for split in SPLITS] == [["a", "b"], ["d"], ["c"]]


def test_one_patient_in_two_splits_is_named_with_both(tmp_path: Path, write_ct: WriteCT) -> None:
    rows = ["a,P1,0.nii.gz,train", "b,P1,1.nii.gz,test", "c,P2,2.nii.gz,train"]
    with pytest.raises(UserError, match=r"patient 'P1' is in 'train' and in 'test'"):
        manifest(tmp_path / "d", write_ct, rows).cases("train")


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        ("id,patient", "a,P", "no column 'image'"),
        ("id,image,splt", "a,0.nii.gz,train", "unknown column 'splt'"),
        ("id,image,split", "a,0.nii.gz,training", r"line 2, column 'split' is 'training'"),
        ("id,image,split", "a,9.nii.gz,train", r"line 2.*9\.nii\.gz: not found"),
        ("id,image,split", "a,,train", r"line 2, column 'image' is empty"),
    ],
)
def test_a_bad_manifest_names_line_and_column(
    tmp_path: Path, write_ct: WriteCT, header: str, row: str, expected: str
) -> None:
    with pytest.raises(UserError, match=expected) as error:
        manifest(tmp_path / "d", write_ct, [row], header).cases("train")
    assert "cohort.csv" in str(error.value)


# -------------------------------------------------------------------------------------------------------- splits
def test_splits_are_by_patient_whatever_the_seed(tmp_path: Path, write_ct: WriteCT) -> None:
    root = tmp_path / "d"
    for i in range(6):
        for j in range(3):
            write_ct(root / f"patient{i}" / f"scan{j}.nii.gz", 10 * i + j)
    seen = set()
    for seed in range(4):
        dataset = folder(root, split={"fractions": (0.5, 0.17, 0.33), "seed": seed})
        patients = [{case.patient for case in dataset.cases(split)} for split in SPLITS]
        assert [len(p) for p in patients] == [3, 1, 2]
        assert len(set.union(*patients)) == 6
        assert sum(dataset.protocol.counts.values()) == 18
        seen.add(dataset.protocol.split_sha256)
    assert len(seen) > 1


def test_four_patients_make_two_one_one(tmp_path: Path, write_ct: WriteCT) -> None:
    dataset = folder(plain(tmp_path / "d", write_ct, 4), split={"counts": (2, 1, 1)})
    assert dataset.protocol.counts == {"train": 2, "val": 1, "test": 1}
    assert folder(tmp_path / "d").protocol.counts == {"train": 2, "val": 1, "test": 1}


@pytest.mark.parametrize("split", [{"counts": (3, 1, 1)}, {"counts": (2, 2, 0)}])
def test_too_few_cases_are_said_to_be_too_few(tmp_path: Path, write_ct: WriteCT, split: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"fewer cases than a split needs: 4 patients.*dataset\.split"):
        folder(plain(tmp_path / "d", write_ct, 4), split=split).cases("train")


def test_two_patients_cannot_fill_three_splits(tmp_path: Path, write_ct: WriteCT) -> None:
    with pytest.raises(UserError, match="fewer cases than a split needs: 2 patients"):
        folder(plain(tmp_path / "d", write_ct, 2)).cases("train")


def test_lists_may_be_given_as_json_or_csv(tmp_path: Path, write_ct: WriteCT) -> None:
    root = plain(tmp_path / "d", write_ct, 4)
    lists = {"train": ["p00", "p02"], "test": ["p01"]}
    (tmp_path / "s.json").write_text(json.dumps(lists))
    (tmp_path / "s.csv").write_text("id,split\np00,train\np02,train\np01,test\n")
    first, second = (folder(root, split={"file": tmp_path / name}) for name in ("s.json", "s.csv"))
    assert first.protocol.split_sha256 == second.protocol.split_sha256
    assert first.protocol.counts == {"train": 2, "val": 0, "test": 1}
    (tmp_path / "s.json").write_text(json.dumps({"train": ["p00"], "test": ["p99"]}))
    with pytest.raises(UserError, match=r"s\.json: 'p99' of 'test'"):
        folder(root, split={"file": tmp_path / "s.json"}).cases("train")
    (tmp_path / "s.json").write_text(json.dumps({"train": ["p00"], "testing": ["p01"]}))
    with pytest.raises(UserError, match="unknown split 'testing'"):
        folder(root, split={"file": tmp_path / "s.json"}).cases("train")


def test_a_new_patient_displaces_few_others(tmp_path: Path, write_ct: WriteCT) -> None:
    root = plain(tmp_path / "d", write_ct, 20)
    before = {case.id for case in folder(root, split={"counts": (12, 3, 4)}).cases("test")}
    write_ct(root / "new.nii.gz")
    after = {case.id for case in folder(root, split={"counts": (12, 3, 4)}).cases("test")}
    assert len(before - after) <= 1


# ------------------------------------------------------------------------------------------------------- patches
def test_patches_of_one_patient_stay_in_one_split(tmp_path: Path, write_ct: WriteCT) -> None:
    dataset = folder(plain(tmp_path / "d", write_ct, 4), shape=None, patches={"shape": (8, 8, 8), "per_volume": 5})
    assert dataset.protocol.rvr_regions == ("lungs",)  # no patch shows which of the two a lung is
    assert dataset.protocol.counts == {"train": 10, "val": 5, "test": 5}
    patients = [{case.patient for case in dataset.cases(split)} for split in SPLITS]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 4
    assert dataset.protocol.grid.shape == (8, 8, 8)


def test_patches_are_true_cut_outs_inside_the_body(tmp_path: Path, write_ct: WriteCT) -> None:
    root = tmp_path / "d"
    for i in range(4):
        write_ct(root / f"{i}_img.nii.gz", i, mask=root / f"{i}_label.nii.gz", shape=(40, 36, 30))
    patches = {"shape": (8, 8, 8), "per_volume": 6, "min_body": 0.6}
    dataset = folder(root, shape=None, patches=patches, label_names=NAMES)
    places = set()
    for case in dataset.cases("train"):
        patch, labels = dataset.load(case)
        assert case.image is not None
        whole = nib.load(case.image)
        start = np.rint(np.linalg.inv(whole.affine) @ patch.affine[:, 3])[:3].astype(int)
        box = tuple(slice(s, s + 8) for s in start)
        assert np.array_equal(np.asarray(whole.dataobj)[box], patch.hu)
        assert labels is not None
        assert np.array_equal(np.asarray(nib.load(case.mask).dataobj)[box], labels.labels)  # type: ignore[arg-type]
        assert (patch.hu > -500).mean() >= 0.5  # the body is found on a coarser grid
        places.add((case.image.name, *start))
    assert len(places) > 8  # not one place again and again
    again = folder(root, shape=None, patches=patches, label_names=NAMES)
    case = dataset.cases("train")[4]
    assert np.array_equal(again.load(case)[0].hu, dataset.load(case)[0].hu)


def test_an_image_smaller_than_its_patch_is_padded_with_air(tmp_path: Path, write_ct: WriteCT) -> None:
    dataset = folder(plain(tmp_path / "d", write_ct, 4), shape=None, patches={"shape": (24, 8, 8), "min_body": 0})
    patch, _ = dataset.load(dataset.cases("train")[0])
    assert patch.shape == (24, 8, 8)
    assert (patch.hu[:4] == -1000).all()
    assert (patch.hu[-4:] == -1000).all()


def test_a_common_spacing_makes_patches_comparable(tmp_path: Path, write_ct: WriteCT) -> None:
    root = plain(tmp_path / "d", write_ct, 4)
    dataset = folder(root, shape=None, spacing=(4.0, 4.0, 4.0), patches={"shape": (4, 4, 4)})
    patch, _ = dataset.load(dataset.cases("train")[0])
    assert patch.spacing == pytest.approx((4, 4, 4))
    assert dataset.protocol.grid.spacing == (4.0, 4.0, 4.0)


def test_a_patch_s_identity_follows_place_and_spacing(tmp_path: Path, write_ct: WriteCT) -> None:
    root = plain(tmp_path / "d", write_ct, 4)

    def first(**config: Any) -> str:
        return folder(root, shape=None, **config).cases("train")[0].sha256

    base = first(patches={"shape": (8, 8, 8)})
    assert base == first(patches={"shape": (8, 8, 8)})
    assert base != first(patches={"shape": (8, 8, 4)})
    assert base != first(patches={"shape": (8, 8, 8), "seed": 1})
    assert base != first(patches={"shape": (8, 8, 8)}, spacing=(2.0, 2.0, 2.0))


# ----------------------------------------------------------------------------------------------------- bad input
def test_what_is_not_ct_names_the_file_and_the_field_to_exclude_it(tmp_path: Path, write_ct: WriteCT) -> None:
    root = plain(tmp_path / "d", write_ct, 3)
    (root / "odd").mkdir()
    nib.save(nib.Nifti1Image(np.arange(512, dtype=np.int16).reshape(8, 8, 8), np.eye(4)), root / "odd" / "mr.nii.gz")
    dataset = folder(root, split={"counts": (2, 1, 1)})
    case = next(c for split in SPLITS for c in dataset.cases(split) if c.patient == "odd")
    with pytest.raises(UserError, match=r"odd/mr\.nii\.gz: not a CT.*dataset\.exclude"):
        dataset.load(case)
    assert ids(folder(root, exclude=("odd/*",))) == ["p00", "p01", "p02"]


def test_a_mask_on_another_grid_names_both_files(tmp_path: Path, write_ct: WriteCT) -> None:
    root = tmp_path / "d"
    for i in range(3):
        write_ct(root / "images" / f"c{i}.nii.gz", i, mask=root / "masks" / f"c{i}.nii.gz")
        whole = nib.load(root / "masks" / f"c{i}.nii.gz")
        moved = whole.affine.copy()
        moved[2, 3] += 246
        nib.save(nib.Nifti1Image(np.asarray(whole.dataobj), moved), root / "masks" / f"c{i}.nii.gz")
    dataset = folder(root, label_names=NAMES)
    with pytest.raises(UserError, match=r"masks/c\d\.nii\.gz.*images/c\d\.nii\.gz.*246 mm"):
        dataset.load(dataset.cases("train")[0])


def test_a_missing_mask_and_unnamed_values_are_named(tmp_path: Path, write_ct: WriteCT) -> None:
    root = tmp_path / "d"
    for i in range(3):
        write_ct(root / "images" / f"c{i}.nii.gz", i, mask=root / "masks" / f"c{i}.nii.gz")
    with pytest.raises(UserError, match=r"label_names"):
        folder(root, masks="dataset").cases("train")
    dataset = folder(root, label_names={1: "aorta"})
    with pytest.raises(UserError, match=r"masks/c\d\.nii\.gz: label values 2 have no name"):
        dataset.load(dataset.cases("train")[0])
    (root / "masks" / "c1.nii.gz").unlink()
    with pytest.raises(UserError, match=r"c1\.nii\.gz: no mask.*dataset\.masks=none"):
        folder(root, label_names=NAMES).cases("train")


def test_no_data_no_images_and_no_grid(tmp_path: Path, write_ct: WriteCT) -> None:
    with pytest.raises(MissingError, match=r"--data-root.*--dataset phantom"):
        FolderDataset(FolderConfig(shape=(8, 8, 8))).cases("train")
    with pytest.raises(MissingError, match=r"nowhere: not a folder"):
        folder(tmp_path / "nowhere").cases("train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images"):
        folder(tmp_path / "empty").cases("train")
    with pytest.raises(UserError, match=r"dataset\.shape.*dataset\.patches\.shape"):
        _ = folder(plain(tmp_path / "d", write_ct), shape=None).protocol


def test_the_data_root_may_come_from_the_environment(
    tmp_path: Path, write_ct: WriteCT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDLORD_BENCH_DATA_ROOT", str(plain(tmp_path / "d", write_ct)))
    assert len(FolderDataset(FolderConfig(shape=(8, 8, 8))).cases("train")) == 7


# -------------------------------------------------------------------------------------------------- fingerprints
def test_fingerprints_follow_content_not_place(tmp_path: Path, write_ct: WriteCT) -> None:
    one, two = plain(tmp_path / "one", write_ct), plain(tmp_path / "two", write_ct)
    assert [c.sha256 for c in folder(one).cases("train")] == [c.sha256 for c in folder(two).cases("train")]
    case = folder(one).cases("train")[0]
    write_ct(one / f"{case.id}.nii.gz", 99)
    assert folder(one).cases("train")[0].sha256 != case.sha256


def test_hashes_are_remembered_and_a_damaged_memory_is_ignored(
    tmp_path: Path, write_ct: WriteCT, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = plain(tmp_path / "d", write_ct)
    calls: list[Path] = []

    def counted(path: Path) -> str:
        calls.append(path)
        return file_sha256(path)

    monkeypatch.setattr("medlord_bench.volumes.fingerprints.file_sha256", counted)
    first = folder(root).cases("train")
    assert len(calls) == 7
    assert folder(root).cases("train") == first
    assert len(calls) == 7
    memory = tmp_path / "memory" / "fingerprints.json"
    memory.write_text('{"half')
    assert folder(root).cases("train") == first
    assert len(calls) == 14
    assert len(json.loads(memory.read_text())) == 7


def test_an_unwritable_memory_costs_time_only(
    tmp_path: Path, write_ct: WriteCT, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MEDLORD_BENCH_CACHE", str(tmp_path / "file" / "below.json"))
    assert len(folder(plain(tmp_path / "d", write_ct)).cases("train")) == 7


def test_the_shared_patients_give_comparable_patches(data_dir: Path) -> None:
    """Real CT of four patients: patches from held-out patients, in HU, upright."""
    dataset = folder(
        data_dir,
        shape=None,
        exclude=("odd/*", "thorax_cta/*_crop/*"),
        spacing=(3.0, 3.0, 3.0),
        patches={"shape": (32, 32, 32), "per_volume": 2},
    )
    patients = [{case.patient for case in dataset.cases(split)} for split in SPLITS]
    assert set.union(*patients) == {"abdomen", "chest_lung1", "small", "thorax_cta"}
    assert [len(p) for p in patients] == [2, 1, 1]
    for split in SPLITS:
        patch, _ = dataset.load(dataset.cases(split)[0])
        assert patch.shape == (32, 32, 32)
        assert (patch.hu > -500).mean() > 0.1
        assert patch.hu.min() >= -1000


def test_patches_have_the_defaults_of_the_docs() -> None:
    config = PatchConfig()
    assert (config.shape, config.per_volume, config.min_body) == ((64, 64, 64), 16, 0.5)


def test_the_body_is_the_largest_part_with_its_lungs() -> None:
    """A table beside a body with a hole, at a spacing that keeps every voxel."""
    hu = np.full((20, 20, 6), -1000, np.int16)
    hu[4:16, 4:16], hu[8:11, 8:11] = 40, -850
    hu[4:16, 18:] = 40
    inside, step = patches.body(Volume(hu, np.diag([6.0, 6.0, 6.0, 1.0])))
    expected = np.zeros(hu.shape, bool)
    expected[4:16, 4:16] = True
    assert step == (1, 1, 1) and np.array_equal(inside, expected)
    small = np.full((20, 20, 6), -1000, np.int16)
    small[0:2, 0:2], small[4:16, 4:16] = 40, 40  # the largest is not the first either
    assert np.array_equal(patches.body(Volume(small, np.diag([6.0, 6.0, 6.0, 1.0])))[0], expected)


@pytest.mark.parametrize(("least", "draws"), [(0.0, 1), (1.0, 50)])
def test_a_place_is_drawn_up_to_fifty_times(monkeypatch: pytest.MonkeyPatch, least: float, draws: int) -> None:
    """No patch of 16 voxels is wholly within a body of 12."""
    hu = np.full((32, 32, 32), -1000, np.int16)
    hu[10:22, 10:22, 10:22] = 40
    drawn, usual = [], patches.numpy_rng

    class Counted:
        def __init__(self, *parts: object) -> None:
            self.rng = usual(*parts)

        def integers(self, *given: Any) -> Any:
            drawn.append(given)
            return self.rng.integers(*given)

    monkeypatch.setattr(patches, "numpy_rng", Counted)
    patches.place(Volume(hu, np.diag([6.0, 6.0, 6.0, 1.0])), (16, 16, 16), least, (0, "a", 0))
    assert len(drawn) == 2 * draws  # a voxel of the coarse body, and a place within it
