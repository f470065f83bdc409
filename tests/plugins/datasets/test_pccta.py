"""The paper's cardiac protocol, and what it says where the data are not there or are of another kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medlord_bench.contracts import SPLITS, Dataset
from medlord_bench.contracts.regions import HEART_NAMES
from medlord_bench.errors import ExitCode, MissingError, UserError
from medlord_bench.plugins.datasets.pccta.dataset import PcctaConfig, PcctaDataset

WriteCT = Callable[..., Path]
SEVEN = {
    "lv_myocardium",
    "left_atrium",
    "left_ventricle",
    "right_atrium",
    "right_ventricle",
    "aorta",
    "pulmonary_artery",
}


def cohort(root: Path, write_ct: WriteCT, n: int) -> Path:
    first = write_ct(root / "images" / "c000.nii.gz", 0, mask=root / "masks" / "c000.nii.gz")
    for i in range(1, n):
        for place in ("images", "masks"):
            (root / place / f"c{i:03d}.nii.gz").hardlink_to(root / place / first.name)
    return root


def test_without_data_it_exits_with_3_and_says_what_to_do() -> None:
    dataset = PcctaDataset(PcctaConfig())
    for ask in (lambda: dataset.cases("train"), lambda: dataset.protocol):
        with pytest.raises(MissingError) as error:
            ask()
        text = str(error.value)
        assert error.value.code == ExitCode.MISSING
        assert len(text.splitlines()) == 1
        for said in (
            "--data-root",
            "MEDLORD_BENCH_DATA_ROOT",
            "ImageCAS",
            "MM-WHS",
            "datasets.md",
            "--dataset phantom",
        ):
            assert said in text


def test_the_protocol_is_the_paper_s(tmp_path: Path, write_ct: WriteCT) -> None:
    """Section 2.1: 512x512x256 about the centre, -1000..2000 HU, 16 of 136 held out; Table 2: six regions."""
    dataset = PcctaDataset(PcctaConfig(data_root=cohort(tmp_path / "d", write_ct, 136)))
    protocol = dataset.protocol
    assert isinstance(dataset, Dataset)
    assert protocol.grid.shape == (512, 512, 256)
    assert protocol.grid.hu_window == (-1000, 2000)
    assert protocol.fit == "crop-pad"
    assert protocol.counts["test"] == 16
    assert protocol.counts["train"] + protocol.counts["val"] == 120
    assert set(protocol.rvr_regions) == SEVEN
    assert set(protocol.condition_regions) == set(protocol.adherence_regions) == SEVEN - {"pulmonary_artery"}
    patients = [{case.patient for case in dataset.cases(split)} for split in SPLITS]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 136


def test_a_cohort_of_another_size_is_told_how(tmp_path: Path, write_ct: WriteCT) -> None:
    root = cohort(tmp_path / "d", write_ct, 20)
    with pytest.raises(UserError, match=r"20 patients for train 108, val 12, test 16.*dataset\.split\.fractions"):
        PcctaDataset(PcctaConfig(data_root=root)).cases("train")
    split = {"fractions": (0.7, 0.1, 0.2), "counts": None}
    config = PcctaConfig.model_validate({"data_root": root, "split": split})
    assert PcctaDataset(config).protocol.counts == {"train": 14, "val": 2, "test": 4}
    all_of_it = PcctaConfig.model_validate({"data_root": root, "split": {"counts": [16, 0, 4]}})
    assert PcctaDataset(all_of_it).protocol.counts == {"train": 16, "val": 0, "test": 4}


def test_a_larger_cohort_says_who_is_left_out(tmp_path: Path, write_ct: WriteCT) -> None:
    dataset = PcctaDataset(PcctaConfig(data_root=cohort(tmp_path / "d", write_ct, 140)))
    assert dataset.protocol.split == "by patient, 108/12/16, seed 0; 4 patients left out"


def test_masks_are_read_by_the_order_of_heartchambers(tmp_path: Path, write_ct: WriteCT) -> None:
    dataset = PcctaDataset(
        PcctaConfig.model_validate({"data_root": cohort(tmp_path / "d", write_ct, 4), "split": {"counts": [2, 1, 1]}})
    )
    _, labels = dataset.load(dataset.cases("train")[0])
    assert labels is not None
    assert labels.region("lv_myocardium").sum() == 64
    assert labels.region("left_atrium").sum() == 48
    assert [HEART_NAMES[value] for value in (3, 5, 6, 7)] == [
        "left_ventricle",
        "right_ventricle",
        "aorta",
        "pulmonary_artery",
    ]


def test_coronary_masks_are_not_taken_for_a_heart(tmp_path: Path, write_ct: WriteCT) -> None:
    """ImageCAS's own label files hold one value, which would read as myocardium."""
    import nibabel as nib
    import numpy as np

    root = cohort(tmp_path / "d", write_ct, 4)
    whole = nib.load(root / "masks" / "c000.nii.gz")
    coronaries = (np.asarray(whole.dataobj) == 1).astype(np.uint8)
    for path in sorted((root / "masks").iterdir()):
        path.unlink()
        nib.save(nib.Nifti1Image(coronaries, whole.affine), path)
    dataset = PcctaDataset(PcctaConfig.model_validate({"data_root": root, "split": {"counts": [2, 1, 1]}}))
    with pytest.raises(UserError, match=r"c00\d\.nii\.gz: has at most one structure.*mask_folder"):
        dataset.load(dataset.cases("train")[0])
