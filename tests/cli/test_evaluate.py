"""`evaluate`: what it makes of two folders, that it is `run` by another name, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medlord_bench.cli.evaluate import named
from medlord_bench.contracts import Volume
from medlord_bench.errors import UserError
from medlord_bench.plugins.datasets.phantom.dataset import PhantomConfig, PhantomDataset
from medlord_bench.volumes.io import read_volume, write_volume

PATIENTS, SAMPLES = 6, 5
QUICK = ("--metric", "reconstruction", "--no-report")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`real/PATIENT/ct.nii.gz`, `ours/` (NIfTI) and `theirs/` (arrays of the same grid), `small/` on another."""
    root = tmp_path_factory.mktemp("evaluate")
    data = PhantomDataset(PhantomConfig(shape=(18, 18, 14), n_train=PATIENTS, n_val=0, n_test=2 * SAMPLES))
    for case in data.cases("train"):
        path = root / "real" / case.patient / "ct.nii.gz"
        path.parent.mkdir(parents=True)
        write_volume(path, data.load(case)[0])
    for index, case in enumerate(data.cases("test")):
        volume = data.load(case)[0]
        for name in ("ours", "theirs", "small"):
            (root / name).mkdir(exist_ok=True)
        if index < SAMPLES:
            write_volume(root / "ours" / f"s{index}.nii.gz", volume)
        else:
            np.save(root / "theirs" / f"s{index}.npy", volume.hu)
            np.save(root / "small" / f"s{index}.npy", volume.hu[:8])
    return root


def plan_of(store: Path) -> dict[str, Any]:
    (path,) = (store / "runs").glob("*/plan.json")
    plan: dict[str, Any] = json.loads(path.read_text())
    return plan


def items(plan: dict[str, Any], step: str) -> list[str]:
    return next(one["items"] for one in plan["steps"] if one["id"] == step)


def one_line(done: Any, code: int) -> str:
    assert (done.code, done.out) == (code, ""), done.err
    assert "Traceback" not in done.err
    return next(line for line in done.err.splitlines() if line.startswith("Error: "))


# ------------------------------------------------------------------------------------------------------------- answers
def test_two_folders_are_measured_against_all_real_images(bench: Any, folders: Path, tmp_path: Path) -> None:
    done = bench(
        *(
            "evaluate",
            "--real",
            folders / "real",
            "--synthetic",
            folders / "ours",
            "--synthetic",
            f"b={folders / 'theirs'}",
        ),
        *(*QUICK, "--json", "--store", tmp_path),
    )
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    scores = json.loads((Path(answer["results"]) / "scores.json").read_text())["scores"]
    assert {score["generator"] for score in scores} == {"files:ours", "files:b"}
    plan = plan_of(tmp_path)
    assert plan["protocol"]["grid"]["shape"] == [18, 18, 14]
    assert {split: len(ids) for split, ids in plan["splits"].items()} == {"train": 3, "val": 0, "test": 3}
    assert [len(items(plan, f"samples:files:{name}")) for name in ("ours", "b")] == [SAMPLES, SAMPLES]
    assert f"grid 18x18x14, from {folders / 'ours' / 's0.nii.gz'}" in done.err
    assert "divided into halves" in done.err


def test_the_samples_in_the_store_are_the_files(bench: Any, folders: Path, tmp_path: Path) -> None:
    """To the voxel: the real images' window is applied, and nothing else."""
    from medlord_bench.volumes.io import read_volume

    done = bench("evaluate", "--real", folders / "real", "--synthetic", folders / "ours", *QUICK, "--store", tmp_path)
    assert done.code == 0, done.err
    made = sorted(Path(done.out.strip()).glob("samples/*/sample-*.nii.gz"))
    assert len(made) == SAMPLES
    for path, source in zip(made, sorted((folders / "ours").iterdir()), strict=True):
        np.testing.assert_array_equal(read_volume(path).hu, read_volume(source).hu.clip(-1000, 1000))


def test_it_is_run_by_another_name(bench: Any, folders: Path, tmp_path: Path) -> None:
    short = bench("evaluate", "--real", folders / "real", "--synthetic", folders / "ours", *QUICK, "--store", tmp_path)
    long = bench(
        *("run", "--generator", "files:ours", "--set", f"files:ours.folder={folders / 'ours'}", "--dataset", "folder"),
        *("--data-root", folders / "real", "--set", "dataset.shape=18,18,14"),
        *("--set", "dataset.split.fractions=0.5,0,0.5", "--samples", str(SAMPLES), *QUICK, "--store", tmp_path),
    )
    assert (short.code, long.code) == (0, 0), long.err
    assert short.out == long.out
    assert "to do" not in long.err


def test_what_is_set_goes_before_what_is_guessed(bench: Any, folders: Path, tmp_path: Path) -> None:
    done = bench(
        *("evaluate", "--real", folders / "real", "--synthetic", folders / "small", "--set", "dataset.shape=8,16,16"),
        *("--set", "dataset.split.counts=4,1,1", "--set", "files:small.fit=crop-pad", "--samples", "2", "--seed", "3"),
        *(*QUICK, "--store", tmp_path, "--max-time", "0.001"),
    )
    assert done.code == 75, done.err
    plan = plan_of(tmp_path)
    assert plan["protocol"]["grid"]["shape"] == [8, 16, 16]
    assert [len(plan["splits"][split]) for split in ("train", "val", "test")] == [4, 1, 1]
    assert len(items(plan, "samples:files:small")) == 2
    assert "halves" not in done.err and "grid 8x16" not in done.err
    assert "resume with: medlord-bench evaluate --real" in done.err


def test_patches_of_the_real_images_need_no_shape(bench: Any, folders: Path, tmp_path: Path) -> None:
    done = bench(
        *("evaluate", "--real", folders / "real", "--synthetic", folders / "small", *QUICK, "--store", tmp_path),
        *("--set", "dataset.patches.shape=8,18,14", "--set", "dataset.patches.per_volume=2", "--max-time", "0.001"),
    )
    assert done.code == 75, done.err
    assert {split: len(ids) for split, ids in plan_of(tmp_path)["splits"].items()} == {"train": 6, "val": 0, "test": 6}


# ------------------------------------------------------------------------------------------------------------ mistakes
def test_another_grid_in_the_second_folder_is_refused_before_any_work(
    bench: Any, folders: Path, tmp_path: Path
) -> None:
    words = ("--real", folders / "real", "--synthetic", folders / "ours", "--synthetic", folders / "small")
    said = one_line(bench("evaluate", *words, *QUICK, "--store", tmp_path), 2)
    assert "its grid is 8x18x14 (along R, A, S), that of folder 18x18x14" in said
    assert not (tmp_path / "objects").exists()


def test_samples_below_the_real_folder_are_not_taken_for_real(bench: Any, folders: Path, tmp_path: Path) -> None:
    said = one_line(bench("evaluate", "--real", folders, "--synthetic", folders / "ours", "--store", tmp_path), 2)
    assert "would be treated as real ones; expected separate folders" in said


@pytest.mark.parametrize(
    ("real", "synthetic", "code", "message"),
    [
        ("nowhere", "ours", 3, "nowhere: not a folder"),
        ("real", "nowhere", 3, "nowhere: not a folder; expected generated volumes"),
        ("real", "real", 2, "would be treated as real ones"),
    ],
)
def test_a_folder_that_will_not_do_is_named(
    real: str, synthetic: str, code: int, message: str, bench: Any, folders: Path, tmp_path: Path
) -> None:
    words = ("--real", folders / real, "--synthetic", f"a={folders / synthetic}", *QUICK, "--store", tmp_path)
    assert message in one_line(bench("evaluate", *words), code)


def test_names_come_from_the_folder_or_from_the_user(tmp_path: Path) -> None:
    odd = tmp_path / "a=b v1.0"
    odd.mkdir()
    assert named([str(odd)]) == {"a-b-v1-0": odd}
    assert named([f"x={odd}", "y=/data/a=b"]) == {"x": odd, "y": Path("/data/a=b")}
    assert list(named(["runs/42/"])) == ["42"]


@pytest.mark.parametrize(
    ("synthetic", "message"),
    [
        (["a/samples", "b/samples"], "'samples' is already a/samples; expected different names: NAME=b/samples"),
        (["v1.0=a"], "'v1.0' is not a valid name"),
        (["=a"], "'' is not a valid name"),
    ],
)
def test_a_name_that_will_not_do_is_said(synthetic: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        named(synthetic)


def test_without_folders_the_usage_is_shown(bench: Any) -> None:
    done = bench("evaluate")
    assert done.code == 2 and "--synthetic" in done.err


def _offset(folders: Path, name: str, padding: int | None = None) -> Path:
    """The real volumes as samples with an offset of 1024, perhaps with a border far below air."""
    place = folders / name
    place.mkdir()
    for number, path in enumerate(sorted((folders / "real").rglob("ct.nii.gz"))):
        hu = read_volume(path).hu.astype(np.int32) + 1024
        if padding is not None:
            hu[:2] = padding
        np.save(place / f"s{number}.npy", hu.astype(np.int16))
    return place


def test_samples_with_an_offset_are_a_warning_in_the_log_and_on_the_page(
    bench: Any, folders: Path, tmp_path: Path
) -> None:
    samples = _offset(folders, "offset")
    done = bench(
        "evaluate", "--real", folders / "real", "--synthetic", samples, "--metric", "axes", "--store", tmp_path
    )
    assert done.code == 0, done.err
    assert "volumes are not plausible CT in HU" in done.err
    assert "without their intercept" in done.err
    page = Path(done.out.strip()).read_text()
    assert "not plausible CT in HU" in page
    assert "6 volumes; layout: files or series directly in it" in page


def test_an_offset_beside_padding_is_still_seen(bench: Any, folders: Path, tmp_path: Path) -> None:
    samples = _offset(folders, "padded", padding=-2000)
    done = bench(
        "evaluate", "--real", folders / "real", "--synthetic", samples, "--metric", "axes", "--store", tmp_path
    )
    assert "6 of 6 volumes are not plausible CT in HU" in done.err


def test_values_whose_padding_hides_that_they_are_no_hu_fail(bench: Any, folders: Path, tmp_path: Path) -> None:
    """Scaled to 0..255 with a border of -2000, which becomes air when it is clipped."""
    place = folders / "hidden"
    place.mkdir()
    for number, path in enumerate(sorted((folders / "real").rglob("ct.nii.gz"))):
        scaled = 255 * np.clip((read_volume(path).hu + 1000) / 1400, 0, 1)
        scaled[:2] = -2000
        np.save(place / f"s{number}.npy", scaled.astype(np.int16))
    done = bench("evaluate", "--real", folders / "real", "--synthetic", place, "--metric", "axes", "--store", tmp_path)
    assert "6 of 6 failed" in done.err
    assert "not a CT in HU" in done.err


def test_samples_may_be_dicom_series(bench: Any, folders: Path, tmp_path: Path) -> None:
    """The same volumes as NIfTI and as DICOM series are the same samples."""
    place = folders / "dicom"
    first = sorted((folders / "real").rglob("ct.nii.gz"))
    for number, path in enumerate(first):
        _as_dicom(place / f"s{number}", read_volume(path))
    done = bench("evaluate", "--real", folders / "real", "--synthetic", place, "--metric", "axes", "--store", tmp_path)
    assert done.code == 0, done.err
    run = Path(done.out.strip()).parent.parent
    made = sorted((run / "samples" / "files_dicom").glob("*.nii.gz"))
    assert len(made) == len(first)
    window = np.clip(read_volume(first[0]).hu, -1000, 1000)
    assert np.array_equal(read_volume(made[0]).hu, window)


def _as_dicom(folder: Path, volume: Volume) -> None:
    """An axial series of a volume with axes towards R, A, S."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True)
    series = generate_uid()
    for k in range(volume.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        one.Modality, one.SeriesInstanceUID, one.PatientID = "CT", series, ""
        one.Columns, one.Rows = volume.shape[:2]
        one.SamplesPerPixel, one.PhotometricInterpretation, one.BitsAllocated, one.BitsStored = 1, "MONOCHROME2", 16, 16
        one.HighBit, one.PixelRepresentation = 15, 1
        one.PixelSpacing = [round(volume.spacing[1], 5), round(volume.spacing[0], 5)]
        one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        one.ImagePositionPatient = [0, 0, round(k * volume.spacing[2], 5)]
        one.PixelData = np.ascontiguousarray(volume.hu[::-1, ::-1, k].T).astype("<i2").tobytes()
        one.save_as(folder / f"{k}.dcm", enforce_file_format=True)
