"""The inventory: every file in one block, nothing vanishes, nothing is guessed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medlord_bench.errors import MissingError, UserError
from medlord_bench.plugins.datasets.folder.dataset import FolderConfig, FolderDataset

WriteCT = Callable[..., Path]


def folder(root: Path, **config: Any) -> FolderDataset:
    return FolderDataset(FolderConfig(data_root=root, shape=(16, 16, 16), **config))


@pytest.fixture
def cohort(tmp_path: Path, write_ct: WriteCT) -> Path:
    root = tmp_path / "d"
    for i in range(4):
        write_ct(root / f"p{i}" / "ct.nii.gz", i)
    return root


def text(dataset: FolderDataset) -> str:
    return "\n".join(dataset.inventory().lines())


def test_the_block_counts_what_is_taken_and_what_is_not(cohort: Path, write_ct: WriteCT) -> None:
    (cohort / "p7").mkdir()
    for name in ("p8/ct.npy", "p9/a.img", "p9/a.hdr", "notes.txt", ".DS_Store"):
        (cohort / name).parent.mkdir(exist_ok=True)
        (cohort / name).write_bytes(b"x")
    write_ct(cohort / "p0" / "second.nii.gz", 9)
    lines = folder(cohort).inventory().lines()
    assert lines[0] == f"{cohort}: 4 image files of 4 patients, no masks; layout: one folder per patient; 10 files seen"
    block = "\n".join(lines)
    for said in (
        "3 folders without an image that can be read (p7, p8, p9)",
        "3 files of formats that are not read (p8/ct.npy, p9/a.hdr, p9/a.img)",
        "1 image files beside ct.* (p0/second)",
        "1 hidden or system files (.DS_Store)",
        "1 other files: .txt 1",
    ):
        assert said in block


def test_every_file_is_counted_once(cohort: Path, write_ct: WriteCT) -> None:
    """What is taken and what is left out add up to the files below the root."""
    for name in ("p1/ct.npy", "p2/._ct.nii.gz", "p3/readme", "LICENSE", "p3/x.csv", "p1/flat.nii.gz"):
        (cohort / name).write_bytes(b"words" * 40)
    write_ct(cohort / "p1" / "flat.nii.gz", 3, shape=(16, 14, 1))
    found = folder(cohort).inventory()
    left = sum(one.count for one in found.left_out if "folders" not in one.reason)
    assert found.files == sum(len(files) for _, _, files in os.walk(cohort)) == 4 + left


def test_a_glob_is_offered_only_where_it_leaves_out_no_image_that_is_taken(cohort: Path, write_ct: WriteCT) -> None:
    """`p0/*` would match what is left out, and the patient's own image."""
    for name in ("second", "third"):
        write_ct(cohort / "p0" / f"{name}.nii.gz", 9)
    (beside,) = folder(cohort).inventory().left_out
    assert (beside.count, beside.places, beside.glob) == (2, ("p0/second", "p0/third"), "")
    for name in ("p0/a.npy", "p1/b.npy"):
        (cohort / name).write_bytes(b"x")
    assert [one.glob for one in folder(cohort).inventory().left_out if "not read" in one.reason] == ["*/*.npy"]


def test_of_nested_folders_without_images_the_topmost_is_named(cohort: Path) -> None:
    for name in ("a/b/c", "p0/x/y", "z"):
        (cohort / name).mkdir(parents=True)
    (empty,) = folder(cohort).inventory().left_out
    assert (empty.count, empty.places) == (3, ("a", "p0/x", "z"))


def test_hidden_folders_are_left_out_by_name(cohort: Path) -> None:
    for name in (".git/objects", "p0/.cache"):
        (cohort / name).mkdir(parents=True)
        (cohort / name / "x.nii.gz").write_bytes(b"x")
    (hidden,) = folder(cohort).inventory().left_out
    assert (hidden.reason, hidden.places) == ("hidden or system files", (".git", "p0/.cache"))


def test_a_glob_that_matches_nothing_is_said(cohort: Path) -> None:
    (cohort / "p[5]").mkdir()
    (cohort / "p0" / "ct.nii.gz").rename(cohort / "p[5]" / "ct.nii.gz")
    warned = folder(cohort, exclude="p[5]/*").inventory().warnings
    assert warned == ("dataset.exclude p[5]/* matches nothing; to name a folder with brackets, write p[[]5]/*",)
    assert "p[5]" not in folder(cohort, exclude="p[[]5]/*").inventory().taken


def test_include_takes_only_what_it_matches(cohort: Path) -> None:
    dataset = folder(cohort, include=["p[013]/*"])
    assert sorted(one.id for one in dataset.files.found) == ["p0", "p1", "p3"]
    assert "1 files by dataset.exclude or dataset.include (p2/ct.nii.gz)" in text(dataset)


def test_images_of_one_slice_are_left_out(cohort: Path, write_ct: WriteCT) -> None:
    write_ct(cohort / "p3" / "ct.nii.gz", 3, shape=(16, 14, 1))
    assert "1 series or images of one slice (p3/ct.nii.gz)" in text(folder(cohort))


def test_a_link_without_its_content_exits_with_3(cohort: Path) -> None:
    (cohort / "p3" / "ct.nii.gz").unlink()
    (cohort / "p3" / "ct.nii.gz").symlink_to("../.git/annex/objects/a/b")
    with pytest.raises(MissingError, match=r"p3/ct\.nii\.gz: a link or pointer .*datalad get") as error:
        folder(cohort).cases("train")
    assert error.value.code == 3


@pytest.mark.parametrize(
    "content",
    ["version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12\n", "/annex/objects/MD5E-s9--0f.nii.gz\n"],
)
def test_a_pointer_file_exits_with_3(cohort: Path, content: str) -> None:
    (cohort / "p2" / "ct.nii.gz").write_text(content)
    with pytest.raises(MissingError, match=r"p2/ct\.nii\.gz: a link or pointer"):
        folder(cohort).cases("train")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights are those of POSIX")
def test_a_folder_that_may_not_be_opened_is_named(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root every folder may be opened: the refusal of the system is put in its place."""
    scandir = os.scandir

    def denied(path: Any) -> Any:
        if str(path).endswith("p2"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(UserError, match=r"p2: permission denied"):
        folder(cohort).cases("train")
    assert [one.id for one in folder(cohort, exclude="p2/*").files.found] == ["p0", "p1", "p3"]


def test_a_folder_under_two_names_is_listed_once(cohort: Path) -> None:
    (cohort / "z_again").symlink_to(cohort / "p1")
    assert "1 links to folders that are listed under another name (z_again)" in text(folder(cohort))


def test_names_that_are_not_utf_8_are_read_under_escaped_ids(tmp_path: Path, write_ct: WriteCT) -> None:
    for name in (b"M\xfcller", b"a", b"b"):
        place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d/" + name))
        write_ct(place / "ct.nii.gz", len(name))
    dataset = folder(tmp_path / "d")
    assert sorted(one.id for one in dataset.files.found) == ["M\\xfcller", "a", "b"]
    assert dataset.inventory().model_dump_json()
    every = [case for split in ("train", "val", "test") for case in dataset.cases(split)]
    assert all(dataset.load(case)[0].shape == (16, 14, 12) for case in every)


def test_the_same_content_in_two_splits_is_a_warning(cohort: Path) -> None:
    (cohort / "p3" / "ct.nii.gz").write_bytes((cohort / "p0" / "ct.nii.gz").read_bytes())
    (cohort.parent / "s.json").write_text('{"train": ["p0", "p1"], "test": ["p2", "p3"]}')
    warned = folder(cohort, split={"file": cohort.parent / "s.json"}).inventory().warnings
    assert len(warned) == 1
    assert "same content in train and test: p0 (train) and p3 (test)" in warned[0]


def test_the_same_content_in_two_splits_names_one_of_each(cohort: Path) -> None:
    for name in ("p1", "p2", "p3"):
        (cohort / name / "ct.nii.gz").write_bytes((cohort / "p0" / "ct.nii.gz").read_bytes())
    (cohort.parent / "s.json").write_text('{"train": ["p0", "p1", "p2"], "test": ["p3"]}')
    warned = folder(cohort, split={"file": cohort.parent / "s.json"}).inventory().warnings
    assert [one.partition(":")[0] for one in warned] == ["same content in train and test"]
    assert "p0 (train) and p3 (test)" in warned[0]


def test_masks_that_a_manifest_names_and_nobody_uses_are_one_warning(cohort: Path) -> None:
    lines = ["image,mask", *(f"p{i}/ct.nii.gz,p{i}/ct.nii.gz" for i in range(4))]
    (cohort / "m.csv").write_text("\n".join(lines))
    warned = folder(cohort, manifest="m.csv").inventory().warnings
    assert len(warned) == 1 and warned[0].startswith("dataset.manifest names masks of 4 images, which are not used")
    assert folder(cohort, manifest="m.csv", masks="none").inventory().warnings == ()
    assert folder(cohort, manifest="m.csv", label_names={1: "a"}).inventory().warnings == ()


def test_a_pipe_among_the_images_is_left_out_and_not_opened(cohort: Path) -> None:
    for name in ("p0/x.nii.gz", "p1/slice", "labels.txt"):
        os.mkfifo(cohort / name)
    assert "3 pipes, sockets or devices" in text(folder(cohort))


def test_nothing_usable_names_the_layouts_and_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"x")
    with pytest.raises(
        UserError, match=r"no images; expected one of the layouts: train/ val/ test/.*nnU-Net.*1 not read"
    ):
        folder(tmp_path).cases("train")


def test_thousands_of_files_take_seconds(tmp_path: Path, write_ct: WriteCT) -> None:
    """1,000 files here; the time of 5,000 is measured in benchmarks."""
    one = write_ct(tmp_path / "one.nii.gz", 1).read_bytes()
    for i in range(500):
        place = tmp_path / "d" / f"p{i:03d}"
        place.mkdir(parents=True)
        (place / "ct.nii.gz").write_bytes(one[:-1] + bytes([i % 256]))
        (place / "notes.txt").write_bytes(b"x")
    start = time.monotonic()
    search = folder(tmp_path / "d").files.search
    assert len(search.found) == 500
    assert search.listing.files == 1000
    assert time.monotonic() - start < 10


def test_a_manifest_reads_what_it_names_whatever_lies_beside(cohort: Path) -> None:
    (cohort / "p9").mkdir()
    (cohort / "p9" / "ct.nii.gz").symlink_to("nowhere")
    (cohort / "m.csv").write_text("image;split\np0/ct.nii.gz;train\np1/ct.nii.gz;Test\np2/ct.nii.gz;\n")
    dataset = folder(cohort, manifest="m.csv")
    assert dataset.protocol.counts == {"train": 1, "val": 0, "test": 1}
    block = text(dataset)
    assert "1 links or pointers whose content was not fetched (p9/ct.nii.gz)" in block
    assert "1 images that the manifest does not name (p3/ct)" in block
    assert "1 cases that are in no split (p2__ct)" in block


def test_a_folder_of_many_images_that_counts_as_one_patient_is_a_warning(tmp_path: Path, write_ct: WriteCT) -> None:
    for name, count in {"fold0": 11, "fold1": 2, "fold2": 2}.items():
        for i in range(count):
            write_ct(tmp_path / name / f"{name}{i}.nii.gz", i + 100 * int(name[-1]))
    assert any("fold0 counts as one patient with 11 images" in one for one in folder(tmp_path).inventory().warnings)


def test_several_masks_of_an_image_are_listed_and_none_is_chosen(tmp_path: Path, write_ct: WriteCT) -> None:
    for i in range(4):
        write_ct(tmp_path / f"p{i}/ct.nii.gz", i, tmp_path / f"p{i}/liver_mask.nii.gz")
        write_ct(tmp_path / "spare.nii.gz", 9, tmp_path / f"p{i}/lung_mask.nii.gz")
    (tmp_path / "spare.nii.gz").unlink()
    block = text(folder(tmp_path))
    assert "no masks" in block
    assert "8 masks that are not paired with one image" in block
