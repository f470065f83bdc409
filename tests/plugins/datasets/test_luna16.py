"""LUNA16 on a small tree that lies as the real one does, with a flipped scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from medlord_bench.contracts import SPLITS, Dataset, LabelMap
from medlord_bench.errors import MissingError, UserError
from medlord_bench.fetching.tables import series_of
from medlord_bench.plugins.datasets.luna16.dataset import Luna16Config, Luna16Dataset, name_sides
from medlord_bench.volumes.grid import fit, fit_labels

FLIPPED = "1.3.6.1.9.0.1"


def patient(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A thorax in L, P, S order (ITK's): 4 lies on the patient's right, 3 on the left and larger, 5 between."""
    hu = np.full((20, 16, 12), -1000, np.int16)
    hu[2:18, 2:14, :] = np.random.default_rng(seed).integers(-50, 100, (16, 12, 12))
    mask = np.zeros(hu.shape, np.uint8)
    mask[3:8, 4:12, 2:9], mask[12:17, 4:12, 2:11], mask[9:11, 6:8, 8:12] = 4, 3, 5
    hu[mask > 0] = -850
    hu[0, 0, 0] = -32768  # padding outside the scanner's field of view
    return hu, mask


def write(array: np.ndarray, path: Path, flipped: bool, packed: bool = False) -> None:
    """`array` with its world kept: a flipped scan has its voxels and its direction cosines reversed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.ascontiguousarray((array[::-1, ::-1] if flipped else array).T))
    image.SetSpacing((0.7, 0.7, 2.0))
    image.SetOrigin((0.7 * 19, 0.7 * 15, 0.0) if flipped else (0.0, 0.0, 0.0))
    sign = -1.0 if flipped else 1.0
    image.SetDirection((sign, 0, 0, 0, sign, 0, 0, 0, 1))
    sitk.WriteImage(image, str(path), useCompression=packed)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Ten subsets of two scans, flat masks as .zraw; scan 0.1 is flipped."""
    root = tmp_path / "luna"
    for subset in range(10):
        for number in range(2):
            series = f"1.3.6.1.9.{subset}.{number}"
            hu, mask = patient(10 * subset + number)
            write(hu, root / f"subset{subset}" / f"{series}.mhd", series == FLIPPED)
            write(mask, root / "seg-lungs-LUNA16" / f"{series}.mhd", series == FLIPPED, packed=True)
    return root


def luna(root: Path, **config: Any) -> Luna16Dataset:
    return Luna16Dataset(Luna16Config(data_root=root, **({"n_val": 3} | config)))


def test_the_protocol_is_the_paper_s(tree: Path) -> None:
    dataset = luna(tree)
    protocol = dataset.protocol
    assert isinstance(dataset, Dataset)
    assert protocol.grid.shape == (512, 512, 256)
    assert protocol.grid.hu_window == (-1000, 2000)
    assert protocol.fit == "resize"
    assert protocol.counts == {"train": 15, "val": 3, "test": 2}
    assert {case.image.parent.name for case in dataset.cases("test") if case.image} == {"subset9"}
    assert protocol.rvr_regions == ("lungs",)
    every = [case.patient for split in SPLITS for case in dataset.cases(split)]
    assert len(every) == len(set(every)) == 20


def test_a_flipped_scan_comes_out_as_if_it_were_not(tree: Path, tmp_path: Path) -> None:
    hu, mask = patient(1)
    case = next(c for split in SPLITS for c in luna(tree).cases(split) if c.id == FLIPPED)
    volume, labels = luna(tree).load(case)
    assert np.array_equal(volume.hu, hu[::-1, ::-1])  # L, P, S to R, A, S
    assert labels is not None
    assert np.array_equal(labels.region("lung_left"), mask[::-1, ::-1] == 3)
    assert np.array_equal(labels.region("lung_right"), mask[::-1, ::-1] == 4)
    assert np.array_equal(labels.region("trachea"), mask[::-1, ::-1] == 5)


def test_lungs_are_the_two_lungs_without_the_trachea(tree: Path) -> None:
    dataset = luna(tree)
    _, labels = dataset.load(dataset.cases("test")[0])
    assert labels is not None
    assert labels.region("lungs").sum() == 5 * 8 * 7 + 5 * 8 * 9


def test_left_and_right_follow_the_image_not_the_number(tree: Path) -> None:
    """A file that counts the other way round is still named right."""
    dataset = luna(tree)
    case = dataset.cases("test")[0]
    hu, mask = patient(90)
    assert case.id == "1.3.6.1.9.9.0"
    write(np.choose(mask, [0, 0, 0, 4, 3, 5]).astype(np.uint8), tree / "seg-lungs-LUNA16" / f"{case.id}.mhd", False)
    _, labels = dataset.load(case)
    assert labels is not None
    assert np.array_equal(labels.region("lung_left"), mask[::-1, ::-1] == 3)


def test_a_lone_lung_is_named_by_its_side(tree: Path) -> None:
    dataset = luna(tree)
    case = dataset.cases("test")[0]
    _, mask = patient(90)
    write(np.where(mask == 4, 4, 0).astype(np.uint8), tree / "seg-lungs-LUNA16" / f"{case.id}.mhd", False)
    _, labels = dataset.load(case)
    assert labels is not None
    assert labels.region("lung_right").sum() == 5 * 8 * 7
    assert labels.region("lung_left").sum() == 0


@pytest.mark.parametrize("value", [3, 4])
@pytest.mark.parametrize(("plane", "side"), [(4, "lung_left"), (5, "lung_right")])
def test_a_lone_lung_next_to_the_middle_has_the_side_where_it_lies(plane: int, side: str, value: int) -> None:
    """Of ten planes along R the middle is between the planes 4 and 5."""
    labels = np.zeros((10, 4, 4), np.uint8)
    labels[plane] = value
    named = name_sides(LabelMap(labels, np.eye(4), {3: "a", 4: "b", 5: "c"}), Path("a.mhd"))
    assert named.region(side).sum() == 16


def test_no_lung_and_unknown_labels_are_errors(tree: Path) -> None:
    dataset = luna(tree)
    case = dataset.cases("test")[0]
    path = tree / "seg-lungs-LUNA16" / f"{case.id}.mhd"
    write(np.zeros((20, 16, 12), np.uint8), path, False)
    with pytest.raises(UserError, match=r"mhd: has neither label 3 nor 4"):
        dataset.load(case)
    write(np.full((20, 16, 12), 7, np.uint8), path, False)
    with pytest.raises(UserError, match=r"mhd: label values 7 have no name"):
        dataset.load(case)


def test_padding_of_minus_32768_does_not_bleed(tree: Path) -> None:
    dataset = luna(tree, shape=(40, 32, 24))
    volume, labels = dataset.load(dataset.cases("test")[0])
    assert volume.hu.min() == -32768
    fitted = fit(volume, dataset.protocol.grid, dataset.protocol.fit).volume
    assert fitted.hu.min() == -1000
    assert labels is not None
    placed = fit_labels(labels, dataset.protocol.grid, dataset.protocol.fit)
    assert placed.region("lungs").mean() == pytest.approx(labels.region("lungs").mean())


def test_the_data_file_s_content_is_part_of_the_fingerprint(tree: Path) -> None:
    """A .mhd header alone does not tell one scan from another."""
    before = luna(tree).cases("test")[0]
    assert before.image is not None
    raw = before.image.with_suffix(".raw")
    data = bytearray(raw.read_bytes())
    data[100] ^= 1
    raw.write_bytes(data)
    assert luna(tree).cases("test")[0].sha256 != before.sha256


def test_missing_masks_subsets_and_data_are_named(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"luna16: no data given.*subset0"):
        Luna16Dataset(Luna16Config()).cases("train")
    with pytest.raises(UserError, match=r"18 elsewhere for 40 of validation.*dataset\.n_val"):
        Luna16Dataset(Luna16Config(data_root=tree)).cases("train")
    (tree / "seg-lungs-LUNA16" / "1.3.6.1.9.4.1.mhd").unlink()
    with pytest.raises(MissingError, match=r"1\.3\.6\.1\.9\.4\.1\.mhd: not found.*dataset\.masks=none"):
        luna(tree).cases("train")
    dataset = luna(tree, masks="none")
    assert dataset.load(dataset.cases("test")[0])[1] is None
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingError, match=r"no subset\*"):
        luna(tmp_path / "empty").cases("train")


def test_masks_are_part_of_the_protocol(tree: Path) -> None:
    assert luna(tree).protocol.masks == "dataset"
    assert luna(tree).protocol.id() != luna(tree, masks="none").protocol.id()


def test_another_division_may_be_given(tree: Path) -> None:
    dataset = luna(tree, split={"counts": (10, 2, 4)})
    assert dataset.protocol.counts == {"train": 10, "val": 2, "test": 4}


def test_its_inventory_counts_scans_and_what_is_beside_them(tree: Path) -> None:
    (tree / "annotations.csv").write_text("seriesuid,coordX\n")
    found = luna(tree, split={"fractions": (0.5, 0, 0.5)}).inventory()
    assert "LUNA16" in found.layout
    assert "image files of" in found.taken
    assert any(".csv 1" in one.words() for one in found.left_out)


def empty_tree(root: Path, subset_of: dict[str, int]) -> None:
    """LUNA16's layout with empty files: the ids are what counts."""
    (root / "seg-lungs-LUNA16").mkdir(parents=True)
    for series, subset in subset_of.items():
        (root / f"subset{subset}").mkdir(exist_ok=True)
        (root / f"subset{subset}" / f"{series}.mhd").touch()
        (root / "seg-lungs-LUNA16" / f"{series}.mhd").touch()


TWICE = [one.uid for one in series_of("lidc_idri.csv", "luna16") if one.patient == "LIDC-IDRI-0332"]


@pytest.mark.parametrize("twice_in", [(9, 9), (9, 3), (0, 3)])
def test_888_series_are_887_patients_and_none_is_in_two_splits(twice_in: tuple[int, int], tmp_path: Path) -> None:
    """Ten subsets of 88 and 89 scans; where the two scans of LIDC-IDRI-0332 lie is drawn three ways."""
    ids = [one.uid for one in series_of("lidc_idri.csv", "luna16")]
    sizes = [89] * 8 + [88] * 2
    places = [subset for subset, count in enumerate(sizes) for _ in range(count)]
    subset_of = dict(zip(ids, places, strict=True))
    for series, subset in zip(TWICE, twice_in, strict=True):  # swapped with another, so that the sizes stay
        other = next(uid for uid, place in subset_of.items() if place == subset and uid not in TWICE)
        subset_of[series], subset_of[other] = subset, subset_of[series]
    empty_tree(tmp_path, subset_of)
    dataset = luna(tmp_path, n_val=40)
    splits, words = dataset._division
    found = {split: {case.patient for case in splits[split]} for split in SPLITS}
    every = {case.patient for cases in dataset.subsets.values() for case in cases}
    print(f"{len(ids)} series, {len(every)} patients, splits { ({split: len(splits[split]) for split in SPLITS}) }")
    assert (len(ids), len(every)) == (888, 887)
    assert not (found["train"] & found["val"] or found["train"] & found["test"] or found["val"] & found["test"])
    assert len(splits["test"]) == 88 and len(splits["val"]) in (40, 41)
    assert sum(len(splits[split]) for split in SPLITS) == (887 if twice_in == (9, 3) else 888)
    assert ("scans of patients in the test subset left out: 1" in words) == (twice_in == (9, 3))


def test_both_scans_of_a_patient_are_validated_on_together(tmp_path: Path) -> None:
    """Whatever the seed, and wherever the boundary lies."""
    ids = [*TWICE, *[one.uid for one in series_of("lidc_idri.csv", "luna16") if one.uid not in TWICE][:23]]
    empty_tree(tmp_path, {uid: 0 if uid in TWICE or n > 3 else 9 for n, uid in enumerate(ids)})
    larger = 0
    for seed in range(120):
        splits = luna(tmp_path, n_val=8, seed=seed)._division[0]
        placed = {split for split in SPLITS for case in splits[split] if case.id in TWICE}
        assert len(placed) == 1
        larger += len(splits["val"]) == 9
    assert larger, "no seed had the boundary between the two: the test shows nothing"


def test_series_of_other_data_count_as_patients_with_a_warning(tree: Path) -> None:
    warnings = luna(tree).inventory().warnings
    assert any("20 series are not of LIDC-IDRI" in one for one in warnings)
