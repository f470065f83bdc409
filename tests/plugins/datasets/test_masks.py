"""Folders of binary masks, and manifests and split files that leave something open."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medlord_bench.contracts import SPLITS, LabelMap
from medlord_bench.errors import UserError
from medlord_bench.plugins.datasets.folder.dataset import FolderConfig, FolderDataset
from medlord_bench.volumes.io import read_volume, write_labels

WriteCT = Callable[..., Path]


def folder(root: Path, **config: Any) -> FolderDataset:
    return FolderDataset(FolderConfig(data_root=root, shape=(16, 16, 16), **config))


def region(image: Path, name: str, shift: float = 0.0) -> Path:
    """A binary mask beside an image, in its folder `segmentations`; shift: of its grid, in mm."""
    volume = read_volume(image)
    affine = volume.affine.copy()
    affine[0, 3] += shift
    labels = np.zeros(volume.shape, np.uint8)
    labels[4:8, 4:8, 4:8] = 1
    path = image.parent / "segmentations" / f"{name}.nii.gz"
    path.parent.mkdir(exist_ok=True)
    write_labels(path, LabelMap(labels, affine, {1: name}))
    return path


@pytest.fixture
def cohort(tmp_path: Path, write_ct: WriteCT) -> Path:
    for i in range(4):
        image = write_ct(tmp_path / "d" / f"p{i}" / "ct.nii.gz", i)
        region(image, "aorta")
        region(image, "heart")
    return tmp_path / "d"


def test_a_region_that_some_cases_have_no_file_of_gets_a_warning(cohort: Path) -> None:
    assert folder(cohort).inventory().warnings == ()
    (cohort / "p2" / "segmentations" / "heart.nii.gz").unlink()
    (warning,) = folder(cohort).inventory().warnings
    assert warning.startswith("of 4 mask folders some have no file of a region") and "heart in 1 (p2" in warning


def test_region_files_on_different_grids_are_refused(cohort: Path) -> None:
    region(cohort / "p1" / "ct.nii.gz", "heart", shift=40.0)
    dataset = folder(cohort)
    case = next(case for split in SPLITS for case in dataset.cases(split) if case.id.startswith("p1"))
    with pytest.raises(UserError, match=r"heart.nii.gz.*aorta.nii.gz"):
        dataset.load(case)


def test_an_image_outside_the_root_needs_an_id(cohort: Path, write_ct: WriteCT) -> None:
    outside = write_ct(cohort.parent / "elsewhere" / "x.nii.gz", 9)
    for text in (str(outside), "../elsewhere/x.nii.gz"):
        (cohort / "m.csv").write_text(f"image,patient\np0/ct.nii.gz,p0\n{text},x\n")
        with pytest.raises(UserError, match="line 3: .* is not below .*expected a column 'id' with one"):
            folder(cohort, manifest="m.csv").inventory()


def test_a_column_that_is_there_twice_is_refused(cohort: Path) -> None:
    (cohort / "m.csv").write_text("image,patient,patient\np0/ct.nii.gz,p0,p1\n")
    with pytest.raises(UserError, match="column 'patient' is there twice"):
        folder(cohort, manifest="m.csv").inventory()


def test_cases_that_a_split_file_leaves_out_are_counted(cohort: Path) -> None:
    ids = sorted(case.id for split in SPLITS for case in folder(cohort).cases(split))
    lists = {"train": ids[:1], "val": ids[1:2], "test": ids[2:3]}
    (cohort.parent / "s.json").write_text(json.dumps(lists))
    block = "\n".join(folder(cohort, split={"file": cohort.parent / "s.json"}).inventory().lines())
    assert "3 image files of 3 patients" in block and f"1 cases that are in no split ({ids[3]})" in block


def test_a_name_with_a_line_break_stays_on_its_line(cohort: Path, write_ct: WriteCT) -> None:
    write_ct(cohort / "p0" / "second\nline.nii.gz", 9)
    lines = folder(cohort).inventory().lines()
    assert not any("\n" in line for line in lines) and any("second\\nline" in line for line in lines)
