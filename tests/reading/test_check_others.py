"""The leak check on packs that others made, on hostile ones, and its false alarms."""

from __future__ import annotations

import gzip
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from medlord_bench.cli.reading import reading
from medlord_bench.errors import MissingError, UserError
from medlord_bench.reading import leak_files
from medlord_bench.reading.check import check_pack, read_labels
from medlord_bench.reading.leak_audit import audit, leaks_of, quantities_of, too_few
from medlord_bench.reading.leak_files import files_of, parts_of
from tests.reading.small_study import anatomy


def made_by_others(folder: Path, n: int = 10, compressed: bool = True, **model: Any) -> dict[str, str]:
    """A folder of NIfTI files with neutral names. model: fields of the headers and `scale` of the noise of one source."""
    labels = {}
    rng = np.random.default_rng(3)
    for number, i in enumerate(rng.permutation(2 * n)):
        code = f"case{number:02d}"
        labels[code] = "patient" if i < n else "diffuser"
        hu = anatomy(int(i)).astype(model.get("dtype", np.int16))
        if i >= n:
            hu = np.where(hu > -900, np.rint(hu * model.get("scale", 1)) + model.get("offset", 0), hu).astype(hu.dtype)
        image = nib.Nifti1Image(hu, np.diag([1.5, 2, 3, 1]))
        folder.mkdir(exist_ok=True)
        path = folder / f"{code}.nii.gz"
        path.write_bytes(gzip.compress(image.to_bytes(), mtime=0) if compressed else image.to_bytes())
        if not compressed:
            path.rename(folder / f"{code}.nii")
    for path in folder.iterdir():
        os.utime(path, (1e9, 1e9))
    return labels


def texts(folder: Path, labels: dict[str, str] | None = None) -> list[str]:
    return [str(leak) for leak in check_pack(folder, labels).leaks]


def test_a_clean_folder_of_others_passes(tmp_path: Path) -> None:
    labels = made_by_others(tmp_path / "p", compressed=False)
    assert texts(tmp_path / "p", labels) == [] and texts(tmp_path / "p") == []


def test_folders_of_pictures_and_of_dicom_are_cases(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    from medlord_bench.reading.dicom import write_series
    from medlord_bench.reading.pictures import write_stacks
    from tests.reading.test_formats import grid_of, number, phantom

    hu = phantom()
    for code in ("AAAAAA", "BBBBBB", "CCCCCC"):
        write_stacks(tmp_path / "png" / code, hu, grid_of(hu))
        write_series(tmp_path / "dicom" / code, hu, grid_of(hu), code, lambda *parts, code=code: number(code, *parts))
    for path in tmp_path.rglob("*"):
        os.utime(path, (1e9, 1e9))
    for kind in ("png", "dicom"):
        found = check_pack(tmp_path / kind)
        assert found.cases == 3 and found.leaks == ()
    (tmp_path / "png" / "AAAAAA" / "bone" / "0001.png").unlink()
    assert any("has no CODE/bone/0001.png" in text for text in texts(tmp_path / "png"))


def test_the_compressed_size_and_fractional_values_tell_the_source(tmp_path: Path) -> None:
    labels = made_by_others(tmp_path / "p", scale=0.2)
    assert any(text.startswith("cases: size tells source") for text in texts(tmp_path / "p", labels))
    labels = made_by_others(tmp_path / "q", dtype=np.float32, offset=0.25)
    assert any(text.startswith("cases: non_integer tells source") for text in texts(tmp_path / "q", labels))


def test_gzip_that_names_the_file_or_the_writer_is_a_leak(tmp_path: Path) -> None:
    labels = made_by_others(tmp_path)
    path = tmp_path / "case00.nii.gz"
    content = gzip.decompress(path.read_bytes())
    with open(path, "wb") as file:
        with gzip.GzipFile("diffuser_01.nii", "wb", fileobj=file, mtime=1.7e9) as packed:
            packed.write(content)
    found = texts(tmp_path, labels)
    for words in ("gzip name is", "gzip time is", "contains 'diffuser'"):
        assert any(words in text for text in found), found


def test_a_key_of_others_is_a_csv(tmp_path: Path) -> None:
    labels = made_by_others(tmp_path / "p", dtype=np.float32, offset=0.25)
    key = tmp_path / "key.csv"
    key.write_text("code,source\n" + "".join(f"{code},{source}\n" for code, source in labels.items()))
    assert read_labels(key) == labels
    done = CliRunner().invoke(reading, ["check", str(tmp_path / "p"), "--key", str(key), "--json"])
    assert done.exit_code == 1 and any("non_integer" in one["leak"] for one in json.loads(done.stdout)["leaks"])
    key.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="the columns code and source"):
        read_labels(key)
    with pytest.raises(MissingError, match="not found"):
        read_labels(tmp_path / "none.csv")


def test_links_pipes_and_paths_out_of_the_pack_are_named_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("diffuser")
    pack = tmp_path / "p"
    pack.mkdir()
    (pack / "out").symlink_to(tmp_path)
    (pack / "a.txt").symlink_to(tmp_path / "secret.txt")
    os.mkfifo(pack / "pipe")
    (pack / "b.mha").write_text("ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementDataFile = ../secret.txt\n")
    with zipfile.ZipFile(pack / "c.zip", "w") as archive:
        archive.writestr("../../escaped", b"x")
    found = check_pack(pack, {"b": "diffuser", "c": "x"})
    leaks = [str(leak) for leak in found.leaks]
    assert "out: is a link; expected a file" in leaks and "a.txt: is a link; expected a file" in leaks
    assert "pipe: is neither a file nor a folder" in leaks
    assert "c.zip!../../escaped: its path leaves the pack" in leaks
    assert not any("contains" in leak for leak in leaks)
    assert any("its voxels are in another file" in note for note in found.notes)
    assert not (tmp_path.parent / "escaped").exists()


def test_bombs_are_read_up_to_a_limit(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(leak_files, "EXPANDED", 2**21)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(2**24))
    (tmp_path / "b.gz").write_bytes(gzip.compress(bytes(2**24)))
    (tmp_path / "c.gz").write_bytes(gzip.compress(bytes(100))[:-20])
    leaks = texts(tmp_path)
    assert "a.zip!zeros: expands to more than 2 MB; the rest is not checked" in leaks
    assert "b.gz: expands to more than 2 MB; the rest is not checked" in leaks
    assert any(leak.startswith("c.gz: cannot be unpacked") for leak in leaks)


def test_headers_that_lie_about_their_size_are_not_allocated(tmp_path: Path) -> None:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header["dim"] = [3, 30000, 30000, 30000, 1, 1, 1, 1]
    header["vox_offset"], header["magic"] = 352, b"n+1"
    for code in ("a1", "b1"):
        (tmp_path / f"{code}.nii").write_bytes(header.binaryblock + bytes(100))
        (tmp_path / f"{code}.mha").write_text(
            "ObjectType = Image\nNDims = 3\nDimSize = 9999 9999 9999\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
        )
        (tmp_path / f"{code}.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 300)
    assert any("not in the audit" in note for note in check_pack(tmp_path, {"a1": "x", "b1": "y"}).notes)


def test_a_word_across_two_stretches_of_a_large_file_is_found(tmp_path: Path) -> None:
    for place in (leak_files.HEAD - 4, leak_files.HEAD + leak_files.CHUNK - 4):
        (tmp_path / "x.bin").write_bytes(bytes(place) + b"diffuser" + bytes(100))
        assert any("contains 'diffuser'" in text for text in texts(tmp_path, {"none": "diffuser"}))
    assert len(list(parts_of(tmp_path / "x.bin", "x.bin"))) > 1 and files_of(tmp_path)[1] == []


def test_no_false_alarm_in_200_clean_packs() -> None:
    """2, 4 and 6 sources that do not differ, with quantities that vary from case to case and go with each other."""
    rng = np.random.default_rng(7)
    alarms = 0
    for number in range(200):
        sources = (2, 4, 6)[number % 3]
        quantities, labels = {}, {}
        for i, code in enumerate(rng.permutation(10 * sources)):
            noise = rng.uniform(50, 150)
            found = {"minimum": -3 * noise, "maximum": 3.2 * noise, "unique": 5 * noise, "border": noise, "uid": 0.0}
            found = {name: value + 20 * rng.normal() for name, value in found.items()}
            quantities[f"c{code:02d}"] = found | {"size": 1920.0, "order": float(i), "listing": float(code)}
        for i, name in enumerate(rng.permutation(list(quantities)).tolist()):
            labels[name] = f"s{i % sources}"
        alarms += bool(leaks_of(audit(quantities, labels)))
    assert alarms == 0


def test_the_audit_sees_a_shift_that_is_not_perfect_and_says_when_cases_are_too_few() -> None:
    rng = np.random.default_rng(2)
    labels = {f"c{i}": "a" if i < 20 else "b" for i in range(40)}
    quantities = {code: {"minimum": rng.normal(-1000 + 8 * (labels[code] == "b"), 5)} for code in labels}
    found = audit(quantities, labels)
    assert found[0].leak and found[0].auc < 0.5 and leaks_of(found)[0].what.startswith("minimum tells source 'a'")
    assert audit(quantities, labels, waived=("minimum",)) == []
    assert too_few(labels, 5) == "" and "6 cases are too few" in too_few(dict(list(labels.items())[17:23]), 5)
    assert "needs two" in too_few({"c": "a"}, 5)


def test_equal_volumes_are_a_leak_and_sizes_of_compressed_files_a_note(tmp_path: Path) -> None:
    labels = made_by_others(tmp_path / "p")
    sizes = {path.stat().st_size for path in (tmp_path / "p").iterdir()}
    found = check_pack(tmp_path / "p")
    assert found.leaks == ()
    assert any(f"{len(sizes)} sizes, {min(sizes):,} to {max(sizes):,} bytes" in note for note in found.notes)
    assert len(sizes) > 1 and len(labels) == found.cases
    (tmp_path / "p" / "case07.nii.gz").write_bytes((tmp_path / "p" / "case03.nii.gz").read_bytes())
    os.utime(tmp_path / "p" / "case07.nii.gz", (1e9, 1e9))
    assert texts(tmp_path / "p") == ["case07.nii.gz: the same bytes as case03.nii.gz"]


def test_a_date_of_others_that_differs_is_named_as_a_date(tmp_path: Path) -> None:
    made_by_others(tmp_path / "p", compressed=False)
    os.utime(tmp_path / "p" / "case05.nii", (1.2e9, 1.2e9))
    (found,) = texts(tmp_path / "p")
    assert found.startswith("case05.nii: modification time is '2008-01-10 21:20:00 UTC' in 1 cases")


@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.int32, np.float32])
def test_different_values_are_counted_as_numpy_does(kind: Any) -> None:
    values = (
        np.random.default_rng(0)
        .normal(0, 3000, (60, 50, 40))
        .clip(0 if kind is np.uint16 else -32768, 32767)
        .astype(kind)
    )
    flipped = values.transpose(2, 0, 1)[::-1]  # not contiguous
    assert quantities_of(flipped)["unique"] == len(np.unique(values))


def test_a_key_with_semicolons_is_read(tmp_path: Path) -> None:
    path = tmp_path / "codes.csv"
    path.write_text("code;source\na;real\nb;model, new\n")
    assert read_labels(path) == {"a": "real", "b": "model, new"}
