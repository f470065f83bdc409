"""ImageCAS with label maps, MM-WHS and TotalSegmentator, each on a small tree that lies as the real one does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medlord_bench.contracts import SPLITS, Dataset, LabelMap
from medlord_bench.contracts.regions import CARDIAC
from medlord_bench.errors import MissingError, UserError
from medlord_bench.plugins.datasets.imagecas.dataset import ImageCasDataset
from medlord_bench.plugins.datasets.mmwhs.dataset import NAMES, MmwhsDataset, check_great_vessels
from medlord_bench.plugins.datasets.totalsegmentator.dataset import TotalSegmentatorDataset
from medlord_bench.volumes.io import write_labels

WriteCT = Callable[..., Path]
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
SPLIT = {"counts": [2, 1, 1]}


def write_map(path: Path, values: dict[int, tuple[int, int]]) -> None:
    """A map of small cubes. values: value -> corner along R and A."""
    import nibabel as nib

    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.zeros((16, 14, 12), np.int16)
    for value, (x, y) in values.items():
        labels[x : x + 2, y : y + 2, 4:8] = value
    nib.save(nib.Nifti1Image(labels, AFFINE), path)


# ------------------------------------------------------------------------------------------------------------ ImageCAS
@pytest.fixture
def imagecas(tmp_path: Path, write_ct: WriteCT) -> Path:
    for number in (1, 2, 3, 5, 90, 201):
        folder = tmp_path / ("1-200" if number <= 200 else "201-400")
        write_ct(folder / f"{number}.img.nii.gz", number)
        write_ct(folder / f"{number}.label.nii.gz", number)
        if number not in (90,):
            corners = {value: (2 + value, 3 + value % 7) for value in range(1, 11)}
            write_map(tmp_path / "segmentations" / f"{number}.img.nii.gz", corners)
    write_ct(tmp_path / "1-200" / "5.img(1).nii.gz", 5)
    return tmp_path


def cas(root: Path, **config: Any) -> ImageCasDataset:
    return ImageCasDataset(ImageCasDataset.Config(data_root=root, **({"split": {"counts": [3, 1, 1]}} | config)))


def test_imagecas_pairs_scans_and_maps_by_number(imagecas: Path) -> None:
    data = cas(imagecas)
    assert isinstance(data, Dataset)
    cases = [case for split in SPLITS for case in data.cases(split)]
    assert sorted(case.id for case in cases) == ["1", "2", "201", "3", "5"]
    assert all(case.mask and case.mask.name == f"{case.id}.img.nii.gz" for case in cases)
    assert data.protocol.name == "imagecas-pccta-surrogate" and data.protocol.rvr_regions == CARDIAC
    _, labels = data.load(cases[0])
    assert labels is not None and set(labels.names.values()) >= set(CARDIAC) and labels.region("aorta").any()
    reasons = " ".join(one.words() for one in data.inventory().left_out)
    assert "1 scans that the authors of the label maps found invalid (90)" in reasons
    assert "6 label maps of the coronaries" in reasons and "1 images not named N.img" in reasons


def test_imagecas_without_maps_takes_all_scans_and_a_scan_twice_is_refused(imagecas: Path, write_ct: WriteCT) -> None:
    assert sum(cas(imagecas, masks="none", split={}).protocol.counts.values()) == 6
    write_ct(imagecas / "more" / "5.img.nii.gz", 5)
    with pytest.raises(UserError, match="scan 5 is also"):
        cas(imagecas).cases("train")


# -------------------------------------------------------------------------------------------------------------- MM-WHS
def heart(aorta: int = 820, artery: int = 850) -> dict[int, tuple[int, int]]:
    """Right is a higher index along the first axis, front along the second: the trunk is left of the aorta and in front."""
    others = {value: (3 + 2 * n, 10) for n, value in enumerate((205, 421, 500, 550, 600))}
    return others | {aorta: (10, 4), artery: (6, 7)}


def test_mmwhs_values_have_their_names(tmp_path: Path, write_ct: WriteCT) -> None:
    for number in range(1001, 1005):
        write_ct(tmp_path / "ct_train" / f"ct_train_{number}_image.nii.gz", number)
        write_map(tmp_path / "ct_train" / f"ct_train_{number}_label.nii.gz", heart())
    data = MmwhsDataset(MmwhsDataset.Config(data_root=tmp_path, split=SPLIT))
    assert isinstance(data, Dataset) and data.protocol.counts == {"train": 2, "val": 1, "test": 1}
    _, labels = data.load(data.cases("train")[0])
    assert labels is not None
    assert all(labels.region(name).sum() == 2 * 2 * 4 for name in CARDIAC), "421 counts as left atrium"


def test_interchanged_great_vessels_are_refused(tmp_path: Path, write_ct: WriteCT) -> None:
    for number in range(1001, 1005):
        write_ct(tmp_path / "ct_train" / f"ct_train_{number}_image.nii.gz", number)
        write_map(tmp_path / "ct_train" / f"ct_train_{number}_label.nii.gz", heart(850, 820))
    data = MmwhsDataset(MmwhsDataset.Config(data_root=tmp_path, split=SPLIT))
    with pytest.raises(UserError, match="interchanged in this copy"):
        data.load(data.cases("train")[0])
    empty = LabelMap(np.zeros((4, 4, 4), np.uint8), AFFINE, dict(enumerate(NAMES.values(), 1)))
    check_great_vessels(empty, "empty")


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize(("aorta", "artery", "refused"), [((6, 1), (1, 6), False), ((1, 6), (6, 1), True)])
def test_great_vessels_of_any_size_have_to_lie_side_by_side(
    aorta: tuple[int, int], artery: tuple[int, int], refused: bool, size: int
) -> None:
    """Axes of RAS: the pulmonary trunk is to the left (smaller x) of the aorta and in front of it (larger y)."""
    values = np.zeros((9, 9, 9), np.uint8)
    for value, (x, y) in ((1, aorta), (2, artery)):
        values[x : x + size, y : y + size, 4 : 4 + size] = value
    labels = LabelMap(values, np.eye(4), {1: "aorta", 2: "pulmonary_artery"})
    if refused:
        with pytest.raises(UserError, match="interchanged in this copy"):
            check_great_vessels(labels, "a.nii")
    else:
        check_great_vessels(labels, "a.nii")


# ---------------------------------------------------------------------------------------------------- TotalSegmentator
@pytest.fixture
def total(tmp_path: Path, write_ct: WriteCT) -> Path:
    rows = ["image_id;age;split"]
    for number, split in enumerate(("train", "train", "val", "test")):
        name = f"s{number:04d}"
        write_ct(tmp_path / name / "ct.nii.gz", number)
        for at, organ in enumerate(("aorta", "heart", "lung_upper_lobe_left", "lung_lower_lobe_right")):
            labels = np.zeros((16, 14, 12), np.uint8)
            labels[4:8, 4:8, 2 + 2 * at : 4 + 2 * at] = 1
            place = tmp_path / name / "segmentations" / f"{organ}.nii.gz"
            place.parent.mkdir(exist_ok=True)
            write_labels(place, LabelMap(labels, AFFINE, {1: organ}))
        rows.append(f"{name};60;{split}")
    (tmp_path / "meta.csv").write_text("\n".join(rows))
    return tmp_path


def seg(root: Path, **config: Any) -> TotalSegmentatorDataset:
    return TotalSegmentatorDataset(TotalSegmentatorDataset.Config(data_root=root, **config))


def test_totalsegmentator_has_the_split_of_its_table_and_says_that_patients_are_unknown(total: Path) -> None:
    data = seg(total)
    assert isinstance(data, Dataset)
    assert {split: [case.id for case in data.cases(split)] for split in SPLITS} == {
        "train": ["s0000", "s0001"],
        "val": ["s0002"],
        "test": ["s0003"],
    }
    assert data.protocol.split == "the column 'split' of meta.csv"
    assert any(one.startswith("patients unknown") for one in data.inventory().warnings)
    _, labels = data.load(data.cases("test")[0])
    assert labels is not None
    assert all(labels.region(region).any() for region in data.protocol.rvr_regions)


def test_a_few_cases_are_divided_by_a_draw_and_a_missing_table_is_named(total: Path) -> None:
    drawn = seg(total, official_split=False, split={"counts": [2, 0, 2]})
    assert drawn.protocol.counts == {"train": 2, "val": 0, "test": 2}
    (total / "meta.csv").write_text("image_id;split\ns0000;train\n")
    with pytest.raises(UserError, match="no line of case s0001"):
        seg(total).cases("train")
    (total / "meta.csv").write_text("image_id;split\ns0000;odd\n")
    with pytest.raises(UserError, match="split 'odd'"):
        seg(total).cases("train")
    (total / "meta.csv").write_text("a;b\n")
    with pytest.raises(UserError, match="no columns image_id and split"):
        seg(total).cases("train")
    (total / "meta.csv").unlink()
    with pytest.raises(MissingError, match="official_split=false"):
        seg(total).cases("train")
